"""Dynamic client registration (RFC 7591), where it is on: anybody may bring a client that acts for people who allow it.

What nobody has looked at gets no tokens of its own, none for other services, and no administrator's scopes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

from authlib.oauth2.rfc7591 import ClientRegistrationEndpoint, InvalidClientMetadataError, InvalidRedirectURIError
from flask import request

from app.services.identity import catalogue, client_auth, clients, discovery, scopes
from app.services.identity.client import (
    AUTHORIZATION_CODE,
    DEVICE_CODE,
    REFRESH_TOKEN,
    Client,
    digest,
    may_be_redirect_uri,
    new_secret,
)
from app.web import await_, resources

GRANTS = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
_MOST = 10


class _JsonPayload:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data


class _JsonRequest:
    """As much of a request as Authlib's endpoint looks at."""

    credential: Any = None

    def __init__(self, data: dict[str, Any]) -> None:
        self.payload = _JsonPayload(data)


class Registration(ClientRegistrationEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """Checks what a client says of itself, and keeps it."""

    def create_endpoint_request(self, given: Any) -> _JsonRequest:
        data = request.get_json(silent=True)
        if not isinstance(data, dict):
            raise InvalidClientMetadataError("The body must be a JSON object.")
        return _JsonRequest(data)

    def authenticate_token(self, request: _JsonRequest) -> bool:
        return True

    def get_server_metadata(self) -> dict[str, Any]:
        return {
            **discovery.document(resources.settings),
            "grant_types_supported": list(GRANTS),
            "scopes_supported": list(_scopes()),
        }

    def extract_client_metadata(self, request: _JsonRequest) -> dict[str, Any]:
        try:
            found = super().extract_client_metadata(request)
        except (TypeError, AttributeError, ValueError):
            # Authlib takes it for granted that a list is one.
            raise InvalidClientMetadataError("The client's metadata are malformed.") from None
        return _checked(cast(dict[str, Any], found))

    def generate_client_info(self, request: _JsonRequest) -> dict[str, Any]:
        return {"client_id": new_secret()[:32], "client_id_issued_at": int(datetime.now(UTC).timestamp())}

    def save_client(
        self, client_info: dict[str, Any], client_metadata: dict[str, Any], request: _JsonRequest
    ) -> Client:
        secret = new_secret()
        method = client_metadata["token_endpoint_auth_method"]
        has_secret = method in (client_auth.BASIC, client_auth.POST)
        client = Client(
            client_id=client_info["client_id"],
            name=client_metadata.get("client_name") or client_info["client_id"],
            auth_method=method,
            grant_types=tuple(client_metadata["grant_types"]),
            scopes=scopes.words(client_metadata["scope"]),
            audiences=(resources.settings.auth.audience,),
            redirect_uris=tuple(client_metadata.get("redirect_uris", ())),
            secret_digest=digest(secret) if has_secret else None,
            jwks=json.dumps(client_metadata["jwks"]) if "jwks" in client_metadata else None,
        )
        await_(clients.store.add(client, now=datetime.now(UTC)))
        self._secret = {"client_secret": secret, "client_secret_expires_at": 0} if has_secret else {}
        return client

    def generate_client_registration_info(self, client: Client, request: _JsonRequest) -> dict[str, Any]:
        return self._secret


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    """The metadata with their defaults. Raises InvalidClientMetadataError, InvalidRedirectURIError."""
    found = {
        "token_endpoint_auth_method": client_auth.BASIC,
        "grant_types": [AUTHORIZATION_CODE],
        "response_types": ["code"],
        "scope": scopes.text(scopes.OF_PERSON),
        **{name: value for name, value in found.items() if value},
    }
    if "jwks_uri" in found:
        raise InvalidClientMetadataError("Keys are given as jwks.")
    if (found["token_endpoint_auth_method"] == client_auth.JWT) != ("jwks" in found):
        raise InvalidClientMetadataError("private_key_jwt needs jwks, and nothing else does.")
    if not isinstance(found["scope"], str) or not set(scopes.words(found["scope"])) <= set(_scopes()):
        raise InvalidClientMetadataError("The scope is not to be had by registration.")
    name = found.get("client_name", "")
    if not isinstance(name, str) or len(name) > 100 or not name.isprintable():
        raise InvalidClientMetadataError("The client_name has up to 100 printable characters.")
    uris = found.get("redirect_uris", [])
    if not isinstance(uris, list) or len(uris) > _MOST or not all(may_be_redirect_uri(uri) for uri in uris):
        raise InvalidRedirectURIError("A redirect URI is https, loopback, or of a scheme like com.example.app.")
    if AUTHORIZATION_CODE in found["grant_types"] and not uris:
        raise InvalidRedirectURIError("The authorization code needs a redirect URI.")
    return found


def _scopes() -> tuple[str, ...]:
    """What a client may register itself for."""
    return tuple(scope for scope in (*scopes.OF_PERSON, *catalogue.of_api()) if not scopes.needs_admin(scope))
