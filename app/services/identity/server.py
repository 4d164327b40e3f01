"""The authorization server: Authlib's, over the async database, strict where it is lenient."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import (
    InvalidClientError,
    InvalidRequestError,
    OAuth2Error,
    UnsupportedResponseTypeError,
)
from authlib.oauth2.rfc9207 import IssuerParameter
from flask import Response, request

from app import telemetry
from app.services.identity import address, client_auth, clients, grants, requests
from app.services.identity.client import Client
from app.services.identity.client_auth import AuthenticationFailed
from app.services.identity.introspection import Introspection, Revocation
from app.services.identity.registration import Registration
from app.services.identity.requests import IdentityRequest
from app.web import await_, resources
from app.web.bridge.switch import drive

# At the level of debugging it writes whole tokens into the log.
logging.getLogger("authlib").setLevel(logging.INFO)


_log = telemetry.log("identity.audit")


class Issuer(IssuerParameter):  # type: ignore[misc]  # Authlib ships no types
    """Every answer that goes back to a client says who gives it (RFC 9207)."""

    def get_issuer(self) -> str:
        return resources.settings.auth.issuer


class IdentityServer(AuthorizationServer):  # type: ignore[misc]  # Authlib ships no types
    """Reads what a client says from one place, asks for one proof, and fails in one way."""

    def __init__(self) -> None:
        super().__init__()
        self.issuer = Issuer()
        self.register_extension(self.issuer)
        for method, function in (
            (client_auth.BASIC, client_auth.basic),
            (client_auth.POST, client_auth.post),
            (client_auth.JWT, client_auth.Assertion()),
            (client_auth.NONE, client_auth.none),
        ):
            self.register_client_auth_method(method, function)
        self.register_grant(grants.AuthorizationCode, [grants.Pkce(), grants.OpenID()])
        self.register_grant(grants.RefreshToken, [grants.OpenID()])
        self.register_grant(grants.Device, [grants.OpenID()])
        self.register_grant(grants.ClientCredentials)
        self.register_grant(grants.TokenExchange)
        self.register_endpoint(grants.DeviceAuthorization)
        self.register_endpoint(Introspection)
        self.register_endpoint(Revocation)
        self.register_endpoint(Registration)

    def query_client(self, client_id: str) -> Client | None:
        return await_(clients.find(client_id))

    def authenticate_client(self, request: IdentityRequest, methods: list[str], endpoint: str = "token") -> Client:
        client_auth.require_one_proof(request)
        try:
            client: Client = super().authenticate_client(request, methods, endpoint)
        except InvalidClientError:
            # A line, and no row: whoever guesses must not fill the database.
            _log.warning("client refused", endpoint=endpoint, address=address.current())
            raise
        return client

    def create_oauth2_request(self, given: Any) -> IdentityRequest:
        if isinstance(given, IdentityRequest):
            return given
        made = requests.of_body(request, issuer=resources.settings.auth.issuer)
        requests.check(made, body=True)
        return made

    def authorization_request(self) -> IdentityRequest:
        """The request to the authorization endpoint. Raises InvalidRequestError."""
        made = requests.of_query(request, issuer=resources.settings.auth.issuer)
        requests.check(made, body=False)
        return made

    def get_authorization_grant(self, request: IdentityRequest) -> Any:
        if request.payload.response_type in grants.AuthorizationCode.RESPONSE_TYPES:
            return super().get_authorization_grant(request)
        client = self.query_client(request.payload.client_id or "")
        if client is None:
            raise InvalidClientError(description="The client is not known.")
        asked = request.payload.redirect_uri
        known = asked if asked and client.check_redirect_uri(asked) else None
        if not request.payload.response_type:
            raise InvalidRequestError("Missing 'response_type' in request.", redirect_uri=known)
        # Authlib repeats the type in its error, which breaks on characters that an error must not have.
        raise UnsupportedResponseTypeError(None, "The only 'response_type' is code.", redirect_uri=known)

    def get_token_grant(self, request: IdentityRequest) -> Any:
        if not request.payload.grant_type:
            raise InvalidRequestError("Missing 'grant_type' in request.")
        return super().get_token_grant(request)

    def handle_error_response(self, request: IdentityRequest | None, error: OAuth2Error) -> Response:
        at_authorization = request is not None and "response_type" in request.payload.data
        if isinstance(error, InvalidClientError) and not at_authorization:
            error = AuthenticationFailed()
        response: Response = super().handle_error_response(request, error)
        return response


server = IdentityServer()


async def respond(work: Callable[..., Response], *arguments: Any) -> Response:
    """Run Authlib's synchronous code; whatever it refuses becomes an answer (RFC 6749, 5.2)."""
    try:
        return await drive(work, *arguments)
    except OAuth2Error as error:
        return server.handle_error_response(None, error)
