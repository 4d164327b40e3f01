"""What the server can do, said to programs (RFC 8414; OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from typing import Any

from app.services.identity import algorithms, catalogue, client, client_auth, scopes
from app.settings import Settings

GRANTS = (
    client.AUTHORIZATION_CODE,
    client.REFRESH_TOKEN,
    client.CLIENT_CREDENTIALS,
    client.DEVICE_CODE,
    client.TOKEN_EXCHANGE,
)


def document(settings: Settings) -> dict[str, Any]:
    """The metadata; both of its addresses give the same."""
    issuer = settings.auth.issuer
    found = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "jwks_uri": f"{issuer}/oauth/jwks",
        "userinfo_endpoint": f"{issuer}/oauth/userinfo",
        "end_session_endpoint": f"{issuer}/oauth/logout",
        "device_authorization_endpoint": f"{issuer}/oauth/device",
        "scopes_supported": [*scopes.OF_PERSON, *catalogue.of_api()],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANTS),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [settings.identity.algorithm],
        "claims_supported": [
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "sid",
            "name",
            "preferred_username",
            "email",
        ],
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        **_clients_at("token_endpoint", client_auth.ANY),
        **_clients_at("revocation_endpoint", client_auth.ANY),
        **_clients_at("introspection_endpoint", client_auth.CONFIDENTIAL),
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
    }
    if settings.identity.registration:
        found["registration_endpoint"] = f"{issuer}/oauth/register"
    return found


def _clients_at(endpoint: str, methods: list[str]) -> dict[str, list[str]]:
    return {
        f"{endpoint}_auth_methods_supported": list(methods),
        f"{endpoint}_auth_signing_alg_values_supported": list(algorithms.OF_CLIENTS),
    }
