"""The end of a login (OpenID Connect RP-Initiated Logout 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from authlib.integrations.flask_oauth2.requests import FlaskOAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidRequestError
from authlib.oidc.rpinitiated import EndSessionEndpoint
from flask import Response, request

from app.services.identity import clients, key_store
from app.services.identity.accounts import Session
from app.services.identity.pages import browser, safety
from app.services.identity.pages.blueprint import page, pages, redirect
from app.web import await_, resources

_HERE = "/oauth/logout"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a logout request asks for, as far as it is believed.

    Args:
        subject: whom the client means, by an ID token of ours.
        leads_to: a registered address of the client, with its state; None: stay here.
    """

    subject: str | None = None
    client: str | None = None
    leads_to: str | None = None


@pages.get(_HERE)
async def ask_logout() -> Response:
    session, wish = await browser.session(), await _wish()
    if session is None:
        return await _done(wish if wish.subject is not None else Wish())
    # Without a token of ours anybody may have sent the person here: an image, a link.
    if wish.subject == session.account.subject:
        return await _log_out(wish)
    return await _ask(session, wish)


@pages.post(_HERE)
async def log_out() -> Response:
    if "decision" not in request.form:
        # A client may send the person by POST; from another site it comes without our cookies.
        pairs = [*request.args.items(multi=True), *request.form.items(multi=True)]
        # What ties a form of ours to a browser has no business in an address.
        pairs = [(name, value) for name, value in pairs if name != browser.TOKEN_FIELD]
        return redirect(browser.link(f"{_HERE}?{urlencode(pairs)}"))
    await browser.require_own_form()
    if request.form["decision"] != "logout":
        return redirect(browser.link(safety.HOME))
    return await _log_out(await _wish())


async def _ask(session: Session, wish: Wish) -> Response:
    query = request.query_string.decode("ascii", "replace")
    target = None if wish.leads_to is None else safety.form_target(wish.leads_to)
    action = f"{_HERE}?{query}" if query else _HERE
    return await page("logout.html", targets=(target,), action=action, account=session.account, client=wish.client)


async def _log_out(wish: Wish) -> Response:
    await browser.log_out()
    return await _done(wish)


async def _done(wish: Wish) -> Response:
    return await page("logged_out.html") if wish.leads_to is None else redirect(wish.leads_to)


async def _wish() -> Wish:
    endpoint = _Endpoint(await key_store.published(), resources.settings.auth.issuer)
    try:
        asked = endpoint.validate_request(FlaskOAuth2Request(request))
    except InvalidRequestError:
        return Wish()
    if asked.client is None:
        # Also of an access token: it is ours, and meant for no client.
        return Wish()
    claims: Mapping[str, Any] = asked.id_token_claims or {}
    return Wish(subject=claims.get("sub"), client=asked.client.name, leads_to=asked.redirect_uri)


class _Endpoint(EndSessionEndpoint):  # type: ignore[misc]  # Authlib ships no types
    """Authlib's checks of the request; the rest is ours."""

    def __init__(self, keys: Any, issuer: str) -> None:
        super().__init__(self)
        self._keys, self._issuer = keys, issuer

    def query_client(self, client_id: str) -> Any:
        return None if "\0" in client_id else await_(clients.find(client_id))

    def get_server_jwks(self) -> Any:
        return self._keys

    def get_algorithms(self) -> list[str]:
        return ["ES256", "EdDSA"]

    def _validate_id_token_hint(self, id_token_hint: str) -> dict[str, Any]:
        claims: dict[str, Any] = super()._validate_id_token_hint(id_token_hint)
        if claims.get("iss") != self._issuer:
            raise InvalidRequestError("The ID token is not of this issuer")
        return claims

    def _is_valid_post_logout_redirect_uri(self, client: Any, uri: str) -> bool:
        return uri in client.logout_uris

    def is_post_logout_redirect_uri_legitimate(self, *_: Any) -> bool:
        # Registered, and the person is asked first.
        return True
