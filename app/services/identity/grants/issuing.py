"""What all grants have in common: for whom a token is, what it allows, and the answer that carries it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Error,
    UnauthorizedClientError,
)

from app.services.identity import client_auth, key_store, repository, scopes, tokens
from app.services.identity.accounts import Account
from app.services.identity.authorization import Family, NewRefresh
from app.services.identity.client import REFRESH_TOKEN, Client, digest, new_secret
from app.services.identity.requests import IdentityRequest
from app.services.identity.tokens import Claims, Issue
from app.web import await_, resources


class InvalidTargetError(OAuth2Error):  # type: ignore[misc]  # Authlib ships no types
    """The audience is unknown, or not for this client (RFC 8693, 2.2.2; RFC 8707, 2)."""

    error = "invalid_target"
    description = "The client may not ask for a token for this audience."


class Issuing:
    """Beside an Authlib grant: makes its tokens."""

    TOKEN_ENDPOINT_AUTH_METHODS = client_auth.ANY
    GRANT_TYPE: str
    request: IdentityRequest
    # The refresh token of the answer, as it is to be stored.
    new_refresh: NewRefresh | None = None

    def authenticate(self) -> Client:
        """The client, which may use this grant."""
        client: Client = self.authenticate_token_endpoint_client()  # type: ignore[attr-defined]  # of Authlib's grant
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError("The client is not registered for this grant.")
        self.request.client = client
        return client

    def user_token(self, account: Account, family: Family, scope: str) -> dict[str, Any]:
        """The answer with a token in the name of `account`, and a refresh token if the client takes one."""
        scope = narrowed(scope, account)
        self.request.family, self.request.user = family, account
        answer = response(tokens.for_user(issue(), account, family, scope=scope))
        if self.request.client.check_grant_type(REFRESH_TOKEN):
            answer["refresh_token"] = secret = new_secret()
            now = datetime.now(UTC)
            self.new_refresh = NewRefresh(digest(secret), now, now + _seconds("refresh_token_seconds"))
        return answer

    def require_same_audience(self, audience: str) -> None:
        """A later request may repeat the audience, and not change it."""
        asked = asked_audience(self.request)
        if asked is not None and asked != audience:
            raise InvalidTargetError


def issue() -> Issue:
    settings = resources.settings
    return Issue(settings.auth.issuer, datetime.now(UTC), settings.identity.access_token_seconds)


def response(claims: Claims) -> dict[str, Any]:
    """A token response (RFC 6749, 5.1)."""
    key = await_(key_store.ring().signer())
    return {
        "access_token": tokens.sign(claims, key, kind=tokens.ACCESS_TOKEN_TYPE),
        "token_type": "Bearer",
        "expires_in": claims["exp"] - claims["iat"],
        "scope": claims["scope"],
    }


def family_until(client: Client, now: datetime) -> datetime:
    """How long a new family lives: as its first refresh token, or as its only access token."""
    refreshes = client.check_grant_type(REFRESH_TOKEN)
    return now + _seconds("refresh_token_seconds" if refreshes else "access_token_seconds")


def new_sid() -> str:
    return secrets.token_hex(16)


def living_account(account_id: int) -> Account:
    """The account. Raises InvalidGrantError: it is gone or disabled."""
    account = await_(repository.accounts.find(account_id))
    if account is None or account.disabled:
        raise InvalidGrantError("The account may not log in any more.")
    return account


def narrowed(scope: str, account: Account) -> str:
    """What `account` can give away of `scope`. Raises InvalidScopeError: nothing."""
    left = scopes.for_user(scopes.words(scope), account.roles)
    if not left:
        raise InvalidScopeError
    return scopes.text(left)


def asked_audience(request: IdentityRequest) -> str | None:
    """``audience``, or ``resource`` by its other name; one of them, once."""
    lists = request.payload.datalist
    asked = set(lists.get("audience", ())) | set(lists.get("resource", ()))
    if len(asked) > 1:
        raise InvalidTargetError("A token is for one audience.")
    return next(iter(asked), None)


def audience_of(request: IdentityRequest, client: Client) -> str:
    """The audience of a new token. Raises InvalidTargetError: it is not the client's to ask for."""
    audience = asked_audience(request) or resources.settings.auth.audience
    if audience not in client.audiences:
        raise InvalidTargetError
    return audience


def required(request: IdentityRequest, name: str) -> str:
    """A parameter of the body. Raises InvalidRequestError: it is missing."""
    value = request.form.get(name)
    if not value:
        raise InvalidRequestError(f"Missing '{name}' in request.")
    return value


def _seconds(name: str) -> timedelta:
    return timedelta(seconds=getattr(resources.settings.identity, name))
