"""Clients: programs that ask for tokens. A frozen value, with the methods by which Authlib asks it."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from authlib.oauth2.rfc6749 import ClientMixin

from app.services.identity import scopes

PUBLIC = "none"

AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105  # a name, not a secret
CLIENT_CREDENTIALS = "client_credentials"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a name, not a secret

_LONGEST_URI = 1_000
_OWN_MACHINE = ("127.0.0.1", "::1", "localhost")
# RFC 8252, 7.3: a program on the person's own machine listens on whatever port is free.
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?(/[^#]*)?")


def digest(secret: str) -> str:
    """How a secret, a code or a token is stored. They are random and long, so a fast hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_secret() -> str:
    """256 random bits, as a secret, a code or a token."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Client(ClientMixin):  # type: ignore[misc]  # Authlib ships no types
    """One client, as it is registered.

    Args:
        auth_method: how it proves who it is; ``none`` for a public client, which cannot.
        old_secret_digest: of the secret before the last rotation, which counts until `old_secret_until`.
        jwks: its public keys as a JWK set, for ``private_key_jwt``.
        trusted: one of our own: nobody is asked for consent, and it is an audience of the public API.
    """

    client_id: str
    name: str
    auth_method: str
    grant_types: tuple[str, ...]
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    redirect_uris: tuple[str, ...] = ()
    logout_uris: tuple[str, ...] = ()
    secret_digest: str | None = None
    old_secret_digest: str | None = None
    old_secret_until: datetime | None = None
    jwks: str | None = None
    trusted: bool = False
    demo: bool = False

    def __repr__(self) -> str:
        return f"<Client {self.client_id} {self.auth_method}>"

    @property
    def is_public(self) -> bool:
        return self.auth_method == PUBLIC

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """There is none: a request names its address, as OpenID Connect has it."""

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """What may be asked of a user; None if `scope` is more than the client is registered with."""
        found = scopes.within(scope, self.scopes)
        return scopes.text(found) if found else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return any(matches(registered, redirect_uri) for registered in self.redirect_uris)

    def check_client_secret(self, client_secret: str) -> bool:
        return self.accepts(client_secret, datetime.now(UTC))

    def accepts(self, secret: str, now: datetime) -> bool:
        """Whether `secret` is the client's, or its last one while that still counts."""
        given = digest(secret)
        known = [self.secret_digest]
        if self.old_secret_until is not None and now < self.old_secret_until:
            known.append(self.old_secret_digest)
        # All are compared, so that the time tells nothing.
        return any(hmac.compare_digest(given, one) for one in known if one is not None)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.auth_method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and AUTHORIZATION_CODE in self.grant_types

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grant_types


def matches(registered: str, asked: str) -> bool:
    """Whether `asked` is the address `registered`: the very same text, but for the port of a loopback address."""
    if registered == asked:
        return True
    ours, theirs = _LOOPBACK.fullmatch(registered), _LOOPBACK.fullmatch(asked)
    return ours is not None and theirs is not None and ours.groups() == theirs.groups()


def may_be_redirect_uri(uri: Any) -> bool:
    """Whether a client may be registered with it: https, plain http on its own machine, or a scheme like com.example.app."""
    if (
        not isinstance(uri, str)
        or len(uri) > _LONGEST_URI
        or not uri.isascii()
        or not uri.isprintable()
        or set(uri) & set(' "<>\\^`{|}#')
    ):
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None:
        return False
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme == "http":
        return host in _OWN_MACHINE
    # RFC 8252, 7.1: the name of a domain backwards, so never javascript: or data:.
    return "." in parts.scheme
