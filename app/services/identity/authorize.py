"""The authorization endpoint, as its pages see it: is this request all right, what does it want, and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass

from authlib.oauth2.rfc6749 import OAuth2Error
from flask import Response

from app.services.identity import scopes
from app.services.identity.accounts import Account, Session
from app.services.identity.client import Client
from app.services.identity.grants import issuing
from app.services.identity.requests import IdentityRequest
from app.services.identity.server import server
from app.web.bridge.switch import drive


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants.

    Args:
        scopes: without those that the user, where one is logged in, cannot give away.
        prompt: as it was sent; None if it was not.
        max_age: seconds since the login at most; None if that does not matter.
        redirect_uri: where the answer goes; it is the client's own.
    """

    client: Client
    scopes: tuple[str, ...]
    prompt: str | None
    max_age: int | None
    redirect_uri: str


class Refused(Exception):
    """The request is not all right; `response` says so, to the client where its address is known to be its own."""

    def __init__(self, response: Response) -> None:
        super().__init__("the authorization request is refused")
        self.response = response


async def inspect(request_user: Account | None) -> Asked:
    """Look at the request that is being served.

    Args:
        request_user: who is logged in.

    Raises:
        Refused: it cannot be granted, whatever the user says.
    """
    return await drive(_inspect, request_user)


async def answer(grant_user: Account | None, session: Session | None) -> Response:
    """Answer the request that is being served, by sending the browser back to the client.

    Args:
        grant_user: who allows it; None: it was denied.
        session: the login in this browser, by which the tokens can be ended later.
    """
    return await drive(_answer, grant_user, session)


def _inspect(user: Account | None) -> Asked:
    request: IdentityRequest | None = None
    try:
        request = server.authorization_request()
        grant = server.get_consent_grant(request, user)
        return _asked(request, grant.redirect_uri, user)
    except OAuth2Error as error:
        raise Refused(_refusal(request, error)) from error


def _asked(request: IdentityRequest, redirect_uri: str, user: Account | None) -> Asked:
    data = request.payload.data
    wanted: str = request.scope
    if user is not None:
        try:
            wanted = issuing.narrowed(wanted, user)
        except OAuth2Error as error:
            error.redirect_uri, error.state = redirect_uri, request.payload.state
            raise
    max_age = int(data["max_age"]) if "max_age" in data else None
    return Asked(request.client, scopes.words(wanted), data.get("prompt"), max_age, redirect_uri)


def _answer(user: Account | None, session: Session | None) -> Response:
    request: IdentityRequest | None = None
    try:
        request = server.authorization_request()
        request.session = session
        grant = server.get_authorization_grant(request)
        response: Response = server.create_authorization_response(request, grant_user=user, grant=grant)
    except OAuth2Error as error:
        return _refusal(request, error)
    response.headers["Cache-Control"] = "no-store"
    return response


def _refusal(request: IdentityRequest | None, error: OAuth2Error) -> Response:
    response = server.handle_error_response(request, error)
    server.issuer.add_issuer_parameter(server, response)
    response.headers["Cache-Control"] = "no-store"
    return response
