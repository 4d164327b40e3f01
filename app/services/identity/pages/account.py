"""Logging in, and who is logged in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from argon2 import Parameters
from flask import Response, request

from app.errors import TooManyRequests
from app.services.identity import accounts, address, audit, clients, passwords
from app.services.identity.accounts import Lockout, LoginFailed
from app.services.identity.pages import browser, limits, safety
from app.services.identity.pages.blueprint import page, pages, redirect
from app.services.identity.passwords import Argon2
from app.web import resources

_AUTHORIZE = "/oauth/authorize"


@pages.get("/account")
async def show_account() -> Response:
    """Who is logged in."""
    session = await browser.session()
    if session is None:
        return redirect(browser.link("/account/login"))
    return await page("account.html", account=session.account, since=session.auth_time, until=session.expires_at)


@pages.get("/account/login")
async def show_login() -> Response:
    return await _login_page(safety.inside(request.args.get("next")))


@pages.post("/account/login")
async def log_in() -> Response:
    await browser.require_own_form()
    following = safety.inside(request.form.get("next"))
    username = request.form.get("username", "")
    try:
        await limits.require("identity-login", limits.LOGINS, address.neighbourhood(address.current()))
        account = await accounts.log_in(
            username,
            request.form.get("password", ""),
            browser.store,
            Argon2(_parameters()),
            policy=_lockout(),
            now=datetime.now(UTC),
        )
    except LoginFailed as error:
        await _record(error)
        return await _login_page(following, username=username, error=error.detail, status=error.status)
    except TooManyRequests as error:
        response = await _login_page(following, username=username, error=error.detail, status=error.status)
        response.headers["Retry-After"] = str(int(error.retry_after or 0) + 1)
        return response
    await browser.log_in(account)
    return redirect(browser.link(following))


async def _login_page(following: str, *, username: str = "", error: str = "", status: int = 200) -> Response:
    target = await _target_after(following)
    return await page(
        "login.html", status=status, targets=(target,), following=following, username=username[:200], error=error
    )  # fmt: skip


async def _target_after(following: str) -> str | None:
    """Where the client sends people that the login leads back to: a registered address, or none."""
    parts = urlsplit(following)
    if parts.path != _AUTHORIZE:
        return None
    query = parse_qs(parts.query)
    client_id, uri = query.get("client_id", [""])[0], query.get("redirect_uri", [""])[0]
    if not client_id or "\0" in client_id:
        return None
    client = await clients.find(client_id)
    if client is None:
        return None
    return safety.form_target(uri) if client.check_redirect_uri(uri) else None


async def _record(error: LoginFailed) -> None:
    attempt, where = error.attempt, address.current()
    subject = attempt.account.subject if attempt is not None else None
    await audit.record("login_failed", subject=subject, address=where, detail=error.why)
    if attempt is not None and attempt.counted and attempt.locked_until is not None:
        detail = f"until {attempt.locked_until.isoformat(timespec='seconds')}"
        await audit.record("locked", subject=subject, address=where, detail=detail)


def _lockout() -> Lockout:
    settings = resources.settings.identity
    return Lockout(
        settings.lockout_failures,
        timedelta(seconds=settings.lockout_seconds),
        timedelta(seconds=settings.lockout_max_seconds),
    )


def _parameters() -> Parameters:
    return passwords.CHEAP if resources.settings.env == "test" else passwords.STRONG
