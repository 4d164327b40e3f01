"""Client credentials (RFC 6749, 4.4): a client in its own name."""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749 import InvalidScopeError
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant

from app.services.identity import client_auth, scopes, tokens
from app.services.identity.grants import issuing
from app.services.identity.grants.issuing import Issuing


class ClientCredentials(Issuing, ClientCredentialsGrant):  # type: ignore[misc]  # Authlib ships no types
    """Nothing is stored: the token lives for minutes, and belongs to no family."""

    TOKEN_ENDPOINT_AUTH_METHODS = client_auth.CONFIDENTIAL

    def validate_token_request(self) -> None:
        self.authenticate()

    def generate_token(self, **_: Any) -> dict[str, Any]:
        client = self.request.client
        granted = scopes.within(self.request.payload.scope, scopes.for_client(client.scopes))
        if granted is None:
            raise InvalidScopeError
        audience = issuing.audience_of(self.request, client)
        return issuing.response(
            tokens.for_client(issuing.issue(), client.client_id, audience=audience, scope=scopes.text(granted))
        )

    def save_token(self, token: dict[str, Any]) -> None:
        """See above."""
