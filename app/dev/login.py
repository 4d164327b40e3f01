"""Tokens as a client gets them, over HTTP alone: for itself, or for somebody whose password it types in.

    authorize ─► login page ─► user name and password ─► back to authorize ─► code ─► token

The redirect to the client is not followed: nobody listens there, and the code stands in its address.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from app.dev import browser
from app.dev.browser import Browser, Form, Page
from app.errors import BadReply, InvalidInput, PlatformError

DEMO_WEB = "demo-web"
# Nobody listens there: it could be any.
REDIRECT_URI = "http://127.0.0.1:8765/callback"
_MOST_STEPS = 10
_LONGEST_TEXT = 200
# What was asked for makes no sense; whatever else is wrong may be another time.
_SENSELESS = frozenset({"invalid_scope", "invalid_target"})


class Refused(PlatformError):
    """The issuer gives no token, and says why."""

    status, code, title = 403, "refused", "No token is given"


def client_token(
    issuer: str, client_id: str, secret: str, *, scope: str | None = None, audience: str | None = None
) -> str:
    """A token for a client itself (client credentials).

    Args:
        scope: words between spaces; None for all that it is registered with.
        audience: whom the token is for; None for the public API.

    Raises:
        Unavailable: nobody answers at the issuer.
        InvalidInput: the client may not have that scope, or not for that audience.
        Refused: the issuer gives none.
    """
    wanted = _without_none(grant_type="client_credentials", scope=scope, audience=audience)
    # Both are form-encoded first (RFC 6749, 2.3.1).
    pair = base64.b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    return _token(Browser().post(f"{issuer}/oauth/token", wanted, {"Authorization": f"Basic {pair}"}))


def user_token(
    issuer: str,
    username: str,
    password: str,
    *,
    scope: str | None = None,
    audience: str | None = None,
    client_id: str = DEMO_WEB,
) -> str:
    """A token for a user (authorization code with PKCE), after a login like in a browser.

    Args:
        scope: as for `client_token`; what the user cannot give away is left out.
        client_id: a public client that needs no consent.

    Raises: as `client_token`, and
        BadReply: the pages of the issuer are not what they should be.
    """
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    asked = _without_none(
        response_type="code",
        client_id=client_id,
        redirect_uri=REDIRECT_URI,
        scope=scope,
        audience=audience,
        state=state,
        code_challenge=create_s256_code_challenge(verifier),
        code_challenge_method="S256",
    )
    person = Browser()
    answer = _walk(person, f"{issuer}/oauth/authorize?{urlencode(asked)}", issuer, username, password)
    exchange = {
        "grant_type": "authorization_code",
        "code": _code(answer, state, issuer),
        "redirect_uri": REDIRECT_URI,
        "client_id": client_id,
        "code_verifier": verifier,
    }
    return _token(person.post(f"{issuer}/oauth/token", exchange))


# ------------------------------------------------------------------------------------------------------- the way


def _walk(person: Browser, start: str, issuer: str, username: str, password: str) -> str:
    """From page to page until the issuer sends us back to the client; returns that address."""
    page, typed = person.get(start), False
    for _ in range(_MOST_STEPS):
        if page.location is not None:
            if page.location.partition("?")[0] == REDIRECT_URI:
                return page.location
            page = person.get(_at_home(page.location, issuer))
            continue
        form = _login_form(page, issuer)
        if form is None:
            raise _no_way_on(page)
        if typed:
            raise Refused(f"The user name or the password of {username} is wrong, or the account is locked for a while")
        page, typed = person.submit(form, {"username": username, "password": password}), True
    raise BadReply(f"The issuer sends us from page to page: after {_MOST_STEPS} there is no end")


def _login_form(page: Page, issuer: str) -> Form | None:
    for form in browser.forms(page):
        if {"username", "password"} <= form.fields.keys() and form.method == "post":
            _at_home(form.action, issuer)
            return form
    return None


def _at_home(url: str, issuer: str) -> str:
    """Raises: BadReply: it is not the issuer's, so nothing of ours is to be sent there."""
    if urlsplit(url)[:2] != urlsplit(issuer)[:2]:
        raise BadReply(f"The issuer {issuer} sends us elsewhere, to {url.partition('?')[0]}")
    return url


def _no_way_on(page: Page) -> PlatformError:
    where = urlsplit(page.url).path
    if page.status >= 400:
        return _refusal(page)
    if browser.forms(page):
        return BadReply(
            f"The issuer asks at {where} for something else than a login: {DEMO_WEB} must be a trusted client"
        )
    return BadReply(f"The issuer's page {where} has no login form")


def _code(address: str, state: str, issuer: str) -> str:
    """The code in the address to which the issuer sends the client (RFC 6749, 4.1.2; RFC 9207)."""
    said = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    if said.get("state") != state or said.get("iss", issuer) != issuer:
        raise BadReply("The answer to our authorization request is not the issuer's, or not to ours")
    if "error" in said or "code" not in said:
        raise _error(said, 400)
    return said["code"]


# ----------------------------------------------------------------------------------------------------- the answer


def _token(page: Page) -> str:
    said = _object(page.body)
    token = said.get("access_token")
    if page.status != 200 or not isinstance(token, str) or not token:
        raise _refusal(page)
    return token


def _refusal(page: Page) -> PlatformError:
    said = _object(page.body)
    if "error" in said:
        return _error(said, page.status)
    detail = said.get("detail", "")
    return Refused(f"{page.url.partition('?')[0]} answers {page.status}{_short(f': {detail}' if detail else '')}")


def _error(said: Mapping[str, Any], status: int) -> PlatformError:
    """OAuth's own words (RFC 6749, 5.2)."""
    error, description = str(said.get("error", status)), said.get("error_description", "")
    text = _short(f"The issuer gives no token: {error}{f' ({description})' if description else ''}")
    return InvalidInput(text) if error in _SENSELESS else Refused(text)


def _short(text: str) -> str:
    """One line of it: what a server says goes to a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_TEXT]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _without_none(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}
