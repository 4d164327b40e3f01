"""The routes of the token side. What they answer is OAuth's own, errors too (RFC 6749, 5.2)."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, request

from app.auth import public
from app.errors import NotFound
from app.services.identity import discovery, introspection, key_store, repository, scopes, tokens
from app.services.identity.server import respond, server
from app.web import API, rate_limited, resources

# Each of these asks for what OAuth says: a client's own proof, a token for this very service, or nothing.
oauth = public(API("oauth", __name__, prefix="/oauth", tag="oauth"))
well_known = public(API("well_known", __name__, prefix="/.well-known", tag="oauth"))

_REGISTRATIONS = "20/hour"
# Beside the public API's, the audience of tokens for this very service.
_SELF = "identity"


@oauth.post("/token")
async def token() -> Response:
    """Get a token (RFC 6749): authorization_code, refresh_token, client_credentials, device_code, token-exchange."""
    return await respond(server.create_token_response)


@oauth.post("/revoke")
async def revoke() -> Response:
    """End what a token belongs to (RFC 7009)."""
    return await respond(server.create_endpoint_response, "revocation")


@oauth.post("/introspect")
async def introspect() -> Response:
    """Ask whether a token counts (RFC 7662)."""
    return await respond(server.create_endpoint_response, "introspection")


@oauth.post("/device")
async def authorize_device() -> Response:
    """Get a device code and a user code (RFC 8628)."""
    return await respond(server.create_endpoint_response, "device_authorization")


@oauth.post("/register")
@rate_limited(_REGISTRATIONS, name="identity.register")
async def register() -> Response:
    """Register a client (RFC 7591), where that is on."""
    if not resources.settings.identity.registration:
        raise NotFound("Clients cannot register themselves here")
    return await respond(server.create_endpoint_response, "client_registration")


@oauth.get("/jwks")
async def jwks() -> Response:
    """The public keys by which tokens are verified (RFC 7517)."""
    response = jsonify(await key_store.published())
    settings = resources.settings
    seconds = int(min(settings.auth.keys_seconds, settings.identity.key_overlap_seconds / 2))
    response.headers["Cache-Control"] = f"public, max-age={seconds}"
    return response


@oauth.get("/userinfo")
async def userinfo() -> Response:
    """Who the user of a token is (OpenID Connect Core 5.3)."""
    return await _userinfo()


@oauth.post("/userinfo")
async def post_userinfo() -> Response:
    """The same; the token is in the Authorization header here, too."""
    return await _userinfo()


@well_known.get("/oauth-authorization-server")
async def oauth_metadata() -> Response:
    """What this server can do (RFC 8414)."""
    return _metadata()


@well_known.get("/openid-configuration")
async def openid_metadata() -> Response:
    """What this server can do (OpenID Connect Discovery)."""
    return _metadata()


def _metadata() -> Response:
    response = jsonify(discovery.document(resources.settings))
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


async def _userinfo() -> Response:
    kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not bearer:
        return _bearer_error(401, None)
    claims = await introspection.read(bearer.strip())
    if claims is None or "sid" not in claims or not _is_meant(claims):
        return _bearer_error(401, "invalid_token")
    if "openid" not in scopes.words(claims["scope"]):
        return _bearer_error(403, "insufficient_scope")
    account = await repository.accounts.find_by_subject(claims["sub"])
    if account is None or account.disabled:
        return _bearer_error(401, "invalid_token")
    return _private(jsonify(tokens.person(account, claims["scope"])))


def _is_meant(claims: dict[str, Any]) -> bool:
    return not {_SELF, resources.settings.auth.audience}.isdisjoint(tokens.audiences(claims))


def _bearer_error(status: int, error: str | None) -> Response:
    """RFC 6750, 3: without a token, no error is told."""
    response = jsonify({} if error is None else {"error": error})
    response.status_code = status
    needs = ', scope="openid"' if status == 403 else ""
    told = "" if error is None else f', error="{error}"{needs}'
    response.headers["WWW-Authenticate"] = f'Bearer realm="identity"{told}'
    return _private(response)


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
