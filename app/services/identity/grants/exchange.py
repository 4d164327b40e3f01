"""Token exchange (RFC 8693): a service that was called in a user's name calls another one in the same name.

What it gets is for that other service alone, never allows more than what it came with, never lives longer, and says
who acts. There is no such grant in Authlib; this one stands where its own stand.
"""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError, InvalidScopeError
from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin

from app.services.identity import client_auth, introspection, repository, scopes, tokens
from app.services.identity.accounts import Account
from app.services.identity.client import TOKEN_EXCHANGE, Client
from app.services.identity.grants import issuing
from app.services.identity.grants.issuing import Issuing
from app.services.identity.tokens import Claims
from app.web import await_, resources

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name, not a secret


class TokenExchange(Issuing, BaseGrant, TokenEndpointMixin):  # type: ignore[misc]  # Authlib ships no types
    """Of a user's access token, for a client that is registered for it."""

    GRANT_TYPE = TOKEN_EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = client_auth.CONFIDENTIAL

    def validate_token_request(self) -> None:
        client = self.authenticate()
        self._require_types()
        self.audience = issuing.audience_of(self.request, client)
        self.subject, self.account = self._subject(client)

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        held = scopes.words(self.subject["scope"])
        asked = scopes.words(self.request.payload.scope) or held
        granted = [scope for scope in asked if scope in held]
        if not granted:
            raise InvalidScopeError
        claims = tokens.exchanged(
            issuing.issue(),
            self.subject,
            self.account,
            client=self.request.client.client_id,
            audience=self.audience,
            scope=scopes.text(granted),
        )
        await_(
            repository.note(
                "token_exchanged",
                self.account,
                client_id=self.request.client.client_id,
                detail=f"for {self.audience}: {claims['scope']}",
            )
        )
        return 200, {**issuing.response(claims), "issued_token_type": ACCESS_TOKEN}, self.TOKEN_RESPONSE_HEADER

    def _require_types(self) -> None:
        form = self.request.form
        if issuing.required(self.request, "subject_token_type") != ACCESS_TOKEN:
            raise InvalidRequestError("The subject_token must be an access token.")
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            raise InvalidRequestError("Only access tokens can be asked for.")
        if "actor_token" in form or "actor_token_type" in form:
            raise InvalidRequestError("The actor is the client itself; it takes no actor_token.")

    def _subject(self, client: Client) -> tuple[Claims, Account]:
        """A living token of a user that was meant for this client, and the user."""
        claims = await_(introspection.read(issuing.required(self.request, "subject_token")))
        if claims is None or "sid" not in claims:
            raise InvalidRequestError("The subject_token is no living access token of a user.")
        meant_for = {client.client_id, resources.settings.auth.audience}
        if meant_for.isdisjoint(tokens.audiences(claims)):
            raise InvalidRequestError("The subject_token was not meant for this client.")
        family = await_(repository.tokens.find_family(claims["sid"]))
        account = None if family is None else await_(repository.accounts.find(family.account_id))
        if account is None or account.disabled or account.subject != claims["sub"]:
            raise InvalidRequestError("The account may not log in any more.")
        return claims, account
