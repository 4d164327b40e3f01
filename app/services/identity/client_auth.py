"""How a client proves who it is: a secret (Basic or in the body), a signed assertion, or, being public, not at all.

Which of them counts is registered with the client. They answer None if their proof is not there; whatever is wrong with
one that is there looks the same from outside.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_plus

from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from app.services.identity import algorithms, clients
from app.services.identity.client import Client, digest
from app.services.identity.requests import IdentityRequest
from app.web import await_, resources

BASIC, POST, JWT, NONE = "client_secret_basic", "client_secret_post", "private_key_jwt", "none"
CONFIDENTIAL = [BASIC, POST, JWT]
ANY = [*CONFIDENTIAL, NONE]

# An assertion that lives longer would have to be remembered for longer.
_LONGEST_ASSERTION = timedelta(hours=1)

Query = Callable[[str], Client | None]


class AuthenticationFailed(InvalidClientError):  # type: ignore[misc]  # Authlib ships no types
    """The one answer to every failure: it does not tell which clients there are."""

    status_code = 401
    description = "The client could not be authenticated."

    def get_headers(self) -> list[tuple[str, str]]:
        return [*OAuth2Error.get_headers(self), ("WWW-Authenticate", 'Basic realm="identity", charset="UTF-8"')]


def require_one_proof(request: IdentityRequest) -> None:
    """Raises InvalidRequestError: more than one proof, or two names (RFC 6749, 2.3)."""
    form = request.form
    proofs = ["Authorization" in request.headers, "client_secret" in form, "client_assertion" in form]
    if sum(proofs) > 1:
        raise InvalidRequestError("The client proves in more than one way who it is.")
    named = form.get("client_id")
    basic = _basic_pair(request)
    if named is not None and basic is not None and basic[0] != named:
        raise InvalidRequestError("The client calls itself by two names.")


def basic(query: Query, request: IdentityRequest) -> Client | None:
    """``client_secret_basic``; both parts are form-encoded first (RFC 6749, 2.3.1)."""
    pair = _basic_pair(request)
    return None if pair is None else _with_secret(query, *pair)


def post(query: Query, request: IdentityRequest) -> Client | None:
    """``client_secret_post``"""
    client_id, secret = request.form.get("client_id"), request.form.get("client_secret")
    return None if client_id is None or secret is None else _with_secret(query, client_id, secret)


def none(query: Query, request: IdentityRequest) -> Client | None:
    """A public client says its name, and proves nothing."""
    client_id = request.form.get("client_id")
    claims_more = "Authorization" in request.headers or not {"client_secret", "client_assertion"}.isdisjoint(
        request.form
    )
    return None if client_id is None or claims_more else query(client_id)


class Assertion(JWTBearerClientAssertion):  # type: ignore[misc]  # Authlib ships no types
    """``private_key_jwt`` (RFC 7523): pinned algorithms, for us, from the client itself, soon over, and used once."""

    CLIENT_AUTH_METHOD = JWT

    def __call__(self, query_client: Query, request: IdentityRequest) -> Client | None:
        try:
            found: Client | None = super().__call__(query_client, request)
        except (InvalidClientError, JoseError, ValueError, TypeError):
            raise AuthenticationFailed from None
        named = request.form.get("client_id")
        if found is not None and named is not None and named != found.client_id:
            raise AuthenticationFailed
        return found

    def get_audiences(self) -> list[str]:
        issuer = resources.settings.auth.issuer
        return [issuer, f"{issuer}/oauth/token"]

    def resolve_client_public_key(self, client: Client) -> KeySet:
        if client.auth_method != JWT or client.jwks is None:
            raise AuthenticationFailed
        return KeySet.import_key_set(json.loads(client.jwks))

    def process_assertion_claims(self, assertion: str, resolve_key: KeySet) -> Any:
        allowed = list(algorithms.OF_CLIENTS)
        token = jwt.decode(assertion, resolve_key, algorithms=allowed, registry=algorithms.of_clients)
        self.verify_claims(token.claims)
        return token.claims

    def validate_jti(self, claims: dict[str, Any], jti: Any) -> bool:
        # Compared as a number: a moment holds less than a claim may say.
        too_late = datetime.now(UTC).timestamp() + _LONGEST_ASSERTION.total_seconds()
        if not isinstance(jti, str) or claims["exp"] > too_late:
            return False
        # Kept for as long as it could be accepted.
        remembered = datetime.fromtimestamp(claims["exp"], UTC) + timedelta(seconds=self.leeway)
        return await_(clients.store.use_assertion(digest(f"{claims['sub']}\0{jti}"), expires_at=remembered))


def _with_secret(query: Query, client_id: str, secret: str) -> Client | None:
    client = query(client_id)
    return client if client is not None and client.check_client_secret(secret) else None


def _basic_pair(request: IdentityRequest) -> tuple[str, str] | None:
    kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (ValueError, binascii.Error):
        return None
    client_id, colon, secret = text.partition(":")
    return (unquote_plus(client_id), unquote_plus(secret)) if colon else None
