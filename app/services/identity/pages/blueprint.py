"""What all pages have in common: their headers, their errors, their look; and housekeeping while they are served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, g, make_response, render_template, request
from markupsafe import Markup
from werkzeug.exceptions import HTTPException

from app import context
from app.auth import public
from app.errors import PlatformError
from app.services.identity.housekeeping import Housekeeping, Policy
from app.services.identity.pages import browser, safety
from app.web import await_, resources

# People come without a token: they have a session, or get one here.
pages = public(Blueprint("identity_pages", __name__, template_folder="templates"))

# Read once, so that what the pages say is what their policy allows.
_STYLE = (Path(__file__).parent / "templates" / "identity" / "style.css").read_text("utf-8")
_OPERATORS = frozenset({"health", "management"})
_housekeeping = Housekeeping(Policy())


async def page(template: str, *, status: int = 200, targets: tuple[str | None, ...] = (), **values: Any) -> Response:
    """A page.

    Args:
        template: its file's name below ``templates/identity``.
        targets: CSP sources to which the answer to its form may lead, besides to us.
    """
    g.identity_form_targets = [target for target in targets if target is not None]
    text = render_template(
        f"identity/{template}",
        style=Markup(_STYLE),  # noqa: S704  # our own file
        link=browser.link,
        token_field=browser.TOKEN_FIELD,
        form_token=await browser.form_token(),
        **values,
    )
    return make_response(text, status)


def redirect(location: str) -> Response:
    """303: whatever the request was, what follows is a GET."""
    return Response("", HTTPStatus.SEE_OTHER, {"Location": location})


@pages.after_request
def strictly(response: Response) -> Response:
    """No script, no frame, no cache, no referrer: also with a redirect and with an error."""
    response.headers.update(safety.headers(_STYLE, g.get("identity_form_targets", ())))
    return response


@pages.before_app_request
def keep_house() -> None:
    """Any request to identity may be the one that finds it due; probes are not kept waiting."""
    if _housekeeping.is_due and request.blueprint not in _OPERATORS:
        keep_audit = timedelta(days=resources.settings.identity.audit_days)
        await_(_housekeeping.run_if_due(browser.store, now=datetime.now(UTC), keep_audit=keep_audit))


@pages.errorhandler(PlatformError)
async def of_platform(error: PlatformError) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    detail = error.detail if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else _OUR_FAULT
    return await _error(error.status, error.title, detail, headers)


@pages.errorhandler(HTTPException)
async def of_http(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None or status < HTTPStatus.BAD_REQUEST:
        return make_response(error.get_response())
    return await _error(status, error.name, error.description or error.name, {})


_OUR_FAULT = "This does not work at the moment. Try again in a little while."


async def _error(status: int, title: str, detail: str, headers: Mapping[str, str]) -> Response:
    current = context.current()
    text = render_template(
        "identity/error.html",
        style=Markup(_STYLE),  # noqa: S704  # our own file
        link=browser.link,
        title=title,
        detail=detail,
        request_id=current.request_id if current is not None else "",
    )
    response = make_response(text, status)
    response.headers.update(headers)
    return response
