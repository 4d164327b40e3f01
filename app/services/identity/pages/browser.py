"""Who is logged in in the browser that asks, and whether a form that it sends is one of ours.

Two cookies, both of no use to anybody but us: ``session`` is the token of a login; ``visit`` ties the login form to the
browser that it was sent to. A session's token is made at the login, never taken from a request, so nobody can be made to
log in under a token that somebody else knows.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from flask import Response, after_this_request, g, request

from app.errors import PlatformError
from app.services.identity import accounts, address, audit, repository
from app.services.identity.account_store import AccountStore
from app.services.identity.accounts import Account, Session
from app.services.identity.pages import forms
from app.web import database, resources

TOKEN_FIELD = "form_token"  # noqa: S105  # a name
_VISIT = re.compile(r"[A-Za-z0-9_-]{43}")

store = AccountStore(database)


class ForeignForm(PlatformError):
    """The form that was sent is not one that this browser was given."""

    status, code, title = 403, "foreign_form", "This form is no longer valid"


async def session() -> Session | None:
    """The login of this browser, if there is one."""
    if "identity_session" not in g:
        token = request.cookies.get(_name("session"), "")
        found = await store.find_session(accounts.session_digest(token), datetime.now(UTC)) if token else None
        g.identity_session = found
    return cast("Session | None", g.identity_session)


async def log_in(account: Account) -> None:
    """Begin a session of `account`, in the place of the one that this browser may have had."""
    before = await session()
    token, digest = accounts.new_session_token()
    now = datetime.now(UTC)
    heir = before is not None and before.account.id == account.id
    if before is not None and not heir:
        await _end(before)
    expires_at = now + timedelta(seconds=resources.settings.identity.session_seconds)
    await store.open_session(
        digest, account.id, auth_time=now, expires_at=expires_at, replaces=before.digest if before and heir else None
    )
    await audit.record("login", subject=account.subject, address=address.current())
    g.identity_session = Session(digest, account, now, expires_at)
    after_this_request(partial(_set, "session", token))
    after_this_request(partial(_forget, "visit"))


async def log_out() -> None:
    """End this browser's session, and revoke what was begun in it."""
    before = await session()
    if before is not None:
        await _end(before)
    g.identity_session = None
    after_this_request(partial(_forget, "session"))


async def _end(ended: Session) -> None:
    # The session last: should it fail half-way, it is still there to be ended again.
    await store.abandon(ended.digest)
    await repository.revoke_families_of_session(ended.digest, "logout")
    await store.close_session(ended.digest)
    await audit.record("logout", subject=ended.account.subject, address=address.current())


async def form_token() -> str:
    """What the forms of this page must carry."""
    return forms.token(_form_key(), await _secret() or _new_visit())


async def require_own_form() -> None:
    """Raises ForeignForm: what was sent is no form of ours, or of a login that has ended since."""
    # Browsers say where a request comes from; those that do not are left to the token.
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    ours = forms.is_ours(_form_key(), await _secret(), request.form.get(TOKEN_FIELD, ""))
    if site not in ("same-origin", "none") or not ours:
        raise ForeignForm(
            "It was sent from elsewhere, or it is too old. Go back, load the page again, and try once more."
        )


def link(path: str) -> str:
    """`path` as a browser outside reaches it: the issuer may have a path of its own."""
    return urlsplit(resources.settings.auth.issuer).path + path


async def _secret() -> str:
    """What this browser alone knows; "" if it has no cookie of ours."""
    if await session() is not None:
        return request.cookies.get(_name("session"), "")
    visit = request.cookies.get(_name("visit"), "")
    return visit if _VISIT.fullmatch(visit) else ""


def _new_visit() -> str:
    visit = secrets.token_urlsafe(32)
    after_this_request(partial(_set, "visit", visit))
    return visit


def _form_key() -> bytes:
    secret = resources.settings.identity.key_secret
    return forms.key(None if secret is None else secret.get_secret_value())


def _is_secure() -> bool:
    return resources.settings.auth.issuer.startswith("https://")


def _name(cookie: str) -> str:
    # The prefix keeps other hosts of the domain from setting it; browsers want it to be Secure.
    return f"__Host-mesh-{cookie}" if _is_secure() else f"mesh-{cookie}"


def _set(cookie: str, value: str, response: Response) -> Response:
    # Without a lifetime: it ends with the browser, or when the session has expired here.
    response.set_cookie(_name(cookie), value, path="/", secure=_is_secure(), httponly=True, samesite="Lax")
    return response


def _forget(cookie: str, response: Response) -> Response:
    response.delete_cookie(_name(cookie), path="/", secure=_is_secure(), httponly=True, samesite="Lax")
    return response
