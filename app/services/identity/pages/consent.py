"""The authorization endpoint, as far as a person has to do with it: log in, allow or deny, go back to the client."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from authlib.common.urls import add_params_to_uri
from flask import Response, request

from app.services.identity import address, audit, authorize
from app.services.identity.accounts import Account, Session
from app.services.identity.authorize import Asked, Refused
from app.services.identity.pages import asking, browser, safety, scopes
from app.services.identity.pages.blueprint import page, pages, redirect
from app.web import resources

_HERE = "/oauth/authorize"


@pages.get(_HERE)
async def ask() -> Response:
    session = await browser.session()
    try:
        asked = await authorize.inspect(_account(session))
        if session is None or _login_needed(session, asked):
            return await _to_login(asked)
        prompt, given = asking.prompts(asked.prompt), await _given(session, asked)
        if not asking.consent_needed(asked.scopes, trusted=asked.client.trusted, given=given, prompt=prompt):
            return await authorize.answer(session.account, session)
        if "none" in prompt:
            return _refuse(asked, "consent_required", "The user has not allowed this yet")
        return await _consent_page(session, asked)
    except Refused as refused:
        return refused.response


@pages.post(_HERE)
async def decide() -> Response:
    if "decision" not in request.form:
        # OpenID Connect Core 3.1.2.1: a request may come by POST. From another site it comes without our cookies.
        pairs = [*request.args.items(multi=True), *request.form.items(multi=True)]
        return redirect(browser.link(f"{_HERE}?{urlencode(pairs)}"))
    await browser.require_own_form()
    session = await browser.session()
    try:
        asked = await authorize.inspect(_account(session))
        if session is None or _login_needed(session, asked):
            return await _to_login(asked)
        if request.form["decision"] != "allow":
            await audit.record("consent_denied", **_who(session, asked))
            return await authorize.answer(None, None)
        await browser.store.consent(session.account.id, asked.client.client_id, asked.scopes, datetime.now(UTC))
        await audit.record("consent", **_who(session, asked), detail=" ".join(asked.scopes))
        return await authorize.answer(session.account, session)
    except Refused as refused:
        return refused.response


async def _consent_page(session: Session, asked: Asked) -> Response:
    return await page(
        "consent.html",
        targets=(safety.form_target(asked.redirect_uri),),
        action=f"{_HERE}?{request.query_string.decode('ascii', 'replace')}",
        account=session.account,
        client=asked.client,
        wishes=scopes.in_words(asked.scopes),
        leads_to=asked.redirect_uri,
    )


async def _to_login(asked: Asked) -> Response:
    if "none" in asking.prompts(asked.prompt):
        return _refuse(asked, "login_required", "The user has to log in")
    query = asking.with_since(request.query_string.decode("ascii", "replace"), datetime.now(UTC))
    return redirect(browser.link("/account/login?" + urlencode({"next": f"{_HERE}?{query}"})))


def _login_needed(session: Session, asked: Asked) -> bool:
    return asking.login_needed(
        session.auth_time,
        prompt=asking.prompts(asked.prompt),
        max_age=asked.max_age,
        since=asking.since_of(request.args.get(asking.SINCE)),
        now=datetime.now(UTC),
    )


def _refuse(asked: Asked, error: str, description: str) -> Response:
    """Back to the client, whose address is known to be its own (RFC 6749, 4.1.2.1; RFC 9207)."""
    answer = {"error": error, "error_description": description, "iss": resources.settings.auth.issuer}
    if "state" in request.args:
        answer["state"] = request.args["state"]
    return redirect(add_params_to_uri(asked.redirect_uri, answer))


async def _given(session: Session, asked: Asked) -> frozenset[str]:
    return await browser.store.consented(session.account.id, asked.client.client_id)


def _account(session: Session | None) -> Account | None:
    return None if session is None else session.account


def _who(session: Session, asked: Asked) -> dict[str, str]:
    return {
        "subject": session.account.subject,
        "client_id": asked.client.client_id,
        "address": address.current(),
    }
