"""What a client says to the token side: in the body of a POST, never in the query, and each thing once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Payload, OAuth2Request
from flask import Request
from werkzeug.datastructures import MultiDict

from app.services.identity.accounts import Session
from app.services.identity.authorization import Family

# Addresses end up in logs and histories. Anything else in a query is ignored (RFC 6749, 3.2).
_NEVER_IN_A_QUERY = frozenset(
    {
        "client_id", "client_secret", "client_assertion", "client_assertion_type", "grant_type", "code", "code_verifier",
        "redirect_uri", "refresh_token", "device_code", "username", "password", "assertion", "scope", "audience",
        "resource", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
        "token", "token_type_hint", "access_token",
    }
)  # fmt: skip
# RFC 8693 and 8707 allow several; we know one target at a time, and say so where it is looked at.
_MAY_REPEAT = frozenset({"audience", "resource"})


class Payload(OAuth2Payload):  # type: ignore[misc]  # Authlib ships no types
    """Parameters, from one place alone."""

    def __init__(self, parameters: MultiDict[str, str]) -> None:
        self._parameters = parameters

    @property
    def data(self) -> MultiDict[str, str]:
        return self._parameters

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        return defaultdict(list, self._parameters.lists())


class IdentityRequest(OAuth2Request):  # type: ignore[misc]  # Authlib ships no types
    """A request as Authlib sees it, with what ours adds on its way through a grant.

    Args:
        payload: where its parameters are.
        issuer: the public address. What Authlib asks of a URL, that it be https or loopback, it asks of this one: between
            the edge and us there may be plain HTTP.

    Raises:
        InsecureTransportError: the issuer is neither.
    """

    user: Any
    family: Family | None = None
    session: Session | None = None
    # Of an ID token that belongs to the answer.
    nonce: str | None = None

    def __init__(self, request: Request, payload: Payload, *, issuer: str) -> None:
        super().__init__(request.method, issuer + request.path, headers=request.headers)
        self._request = request
        self.payload = payload

    @property
    def args(self) -> MultiDict[str, str]:
        return self._request.args

    @property
    def form(self) -> MultiDict[str, str]:
        return self._request.form


def of_body(request: Request, *, issuer: str) -> IdentityRequest:
    """The request to a token endpoint; `check` says whether it may be looked at."""
    return IdentityRequest(request, Payload(request.form), issuer=issuer)


def of_query(request: Request, *, issuer: str) -> IdentityRequest:
    """The request to the authorization endpoint. The form of our own consent page posts to the same query."""
    return IdentityRequest(request, Payload(request.args), issuer=issuer)


def check(request: IdentityRequest, *, body: bool) -> None:
    """Raises InvalidRequestError: a secret in the query, a parameter that comes twice, a text that is none."""
    if body and (leaked := sorted(_NEVER_IN_A_QUERY & set(request.args))):
        raise InvalidRequestError(f"'{leaked[0]}' belongs in the body, not in the query.")
    for name, values in request.payload.datalist.items():
        if len(values) > 1 and name not in _MAY_REPEAT:
            raise InvalidRequestError("A parameter comes more than once.")
        if any("\0" in value for value in values):
            raise InvalidRequestError("A parameter has a NUL character in it.")
