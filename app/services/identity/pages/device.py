"""Where somebody tells a device without a keyboard that it may act for them (RFC 8628, 3.3)."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Response, request

from app.services.identity import address, audit, device
from app.services.identity.accounts import Session
from app.services.identity.journal import Event
from app.services.identity.pages import browser, limits, scopes
from app.services.identity.pages.blueprint import page, pages, redirect

_HERE = "/account/device"
MAX_CODE = 16
_UNKNOWN = "This code is not known, or it has expired. Look at your device: it may show a new one."


@pages.get(_HERE)
async def ask_code() -> Response:
    """The form for the code; one that comes in the address is only filled in, so that people compare it."""
    code = request.args.get("user_code", "")
    if await browser.session() is None:
        following = f"{_HERE}?{urlencode({'user_code': code})}" if code else _HERE
        return redirect(browser.link("/account/login?" + urlencode({"next": following})))
    return await page("device.html", code=_readable(normal(code)), error="")


@pages.post(_HERE)
async def take_code() -> Response:
    await browser.require_own_form()
    session = await browser.session()
    if session is None:
        return redirect(browser.link("/account/login?" + urlencode({"next": _HERE})))
    # A decision names a code as well, so it is a guess as well.
    await limits.require("identity-device", limits.USER_CODES, f"account {session.account.id}")
    code = normal(request.form.get("user_code", ""))
    decision = request.form.get("decision")
    if decision is None:
        return await _confirm(code)
    return await _decide(session, code, approved=decision == "allow")


def normal(code: str) -> str:
    """A user code as it is compared: letters and digits alone, in capitals."""
    return "".join(c for c in code.upper() if c.isascii() and c.isalnum())[:MAX_CODE]


async def _confirm(code: str) -> Response:
    pending = await device.lookup(code) if code else None
    if pending is None:
        return await page("device.html", status=422, code=_readable(code), error=_UNKNOWN)
    wishes = scopes.in_words(pending.scopes)
    return await page("device_confirm.html", code=code, shown=_readable(code), client=pending.client, wishes=wishes)


async def _decide(session: Session, code: str, *, approved: bool) -> Response:
    if not await device.decide(code, session, approved):
        return await page("device.html", status=422, code="", error=_UNKNOWN)
    event: Event = "device_approved" if approved else "device_denied"
    await audit.record(event, subject=session.account.subject, address=address.current())
    return await page("device_done.html", approved=approved)


def _readable(code: str) -> str:
    return f"{code[:4]}-{code[4:]}" if len(code) == 8 else code
