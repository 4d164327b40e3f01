"""What there is to say of a token of ours: whether it counts, and to whom that may be told (RFC 7662, RFC 7009)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from app.services.identity import authorization, client_auth, key_store, repository, tokens
from app.services.identity.authorization import Refresh
from app.services.identity.client import Client, digest
from app.services.identity.requests import IdentityRequest
from app.services.identity.tokens import Claims
from app.web import await_, resources

_LONGEST_TOKEN = 16_384


@dataclass(frozen=True, slots=True)
class Found:
    """A token of ours: the claims of an access token, or a refresh token."""

    client_id: str
    claims: Claims
    refresh: Refresh | None = None

    # Both have been looked at already; Authlib asks.
    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client_id


class UnsupportedTokenType(OAuth2Error):  # type: ignore[misc]  # Authlib ships no types
    """This token cannot be revoked by this client (RFC 7009, 2.2.1)."""

    error = "unsupported_token_type"


async def read(token: str) -> Claims | None:
    """The claims of a living access token: signed by us, neither expired nor revoked."""
    kid = tokens.key_id(token) if len(token) <= _LONGEST_TOKEN else None
    key = None if kid is None else await key_store.ring().find(kid)
    if key is None:
        return None
    claims = tokens.read(token, key, issuer=resources.settings.auth.issuer, now=datetime.now(UTC))
    if claims is None or "sid" not in claims:
        return claims
    family = await repository.tokens.find_family(claims["sid"])
    return None if family is None or family.revoked_at is not None else claims


async def find(token: str, *, also_used: bool = False) -> Found | None:
    """The living token, of whichever kind.

    Args:
        also_used: a refresh token that was used already is found, too, while its family lives.
    """
    claims = await read(token)
    if claims is not None:
        return Found(claims["client_id"], claims)
    refresh = await repository.tokens.find_refresh(digest(token))
    if refresh is None:
        return None
    verdict = authorization.judge(refresh, datetime.now(UTC), grace_seconds=0.0)
    if verdict == "unknown" or (verdict != "fresh" and not also_used):
        return None
    family = refresh.family
    described = {
        "client_id": family.client_id,
        "scope": family.scope,
        "aud": family.audience,
        "sid": family.sid,
        "exp": int(refresh.expires_at.timestamp()),
        "iss": resources.settings.auth.issuer,
    }
    return Found(family.client_id, described, refresh)


def may_know(client: Client, found: Found) -> bool:
    """Whether `client` may be told of a token: its own, or an access token that is meant for it.

    One of our own services is meant by the name of the public API as well.
    """
    if found.client_id == client.client_id:
        return True
    audience = tokens.audiences(found.claims)
    meant = client.client_id in audience or (client.trusted and resources.settings.auth.audience in audience)
    return meant and found.refresh is None


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """For confidential clients. What one may not know of looks like what does not count."""

    CLIENT_AUTH_METHODS = client_auth.CONFIDENTIAL

    def check_params(self, request: IdentityRequest, client: Client) -> None:
        # A hint that is unknown is ignored, as any hint is.
        _token_of(request)

    def query_token(self, token_string: str, token_type_hint: str | None) -> Found | None:
        return await_(find(token_string))

    def check_permission(self, token: Found, client: Client, request: IdentityRequest) -> bool:
        return may_know(client, token)

    def introspect_token(self, token: Found) -> dict[str, Any]:
        kind = "Bearer" if token.refresh is None else "refresh_token"
        return {"active": True, "token_type": kind, **token.claims}


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """Ends the whole family, by any of its tokens."""

    CLIENT_AUTH_METHODS = client_auth.ANY

    def authenticate_token(self, request: IdentityRequest, client: Client) -> Found | None:
        found = await_(find(_token_of(request), also_used=True))
        if found is not None and not found.check_client(client):
            raise InvalidGrantError("The token is another client's.")
        return found

    def revoke_token(self, token: Found, request: IdentityRequest) -> None:
        if "sid" not in token.claims or "act" in token.claims:
            raise UnsupportedTokenType("Only a token that a user gave to this client can be revoked.")
        await_(repository.revoke_family(token.claims["sid"], "token_revoked"))


def _token_of(request: IdentityRequest) -> str:
    token = request.form.get("token")
    if not token:
        raise InvalidRequestError("Missing 'token' in request.")
    return token
