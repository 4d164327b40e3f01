"""``Idempotency-Key``: a request that is repeated has its effect once (draft-ietf-httpapi-idempotency-key-header).

    no key ──────────────────────────► the view
    known, and answered ─────────────► the same reply, with Idempotency-Replayed
    known, with another body ────────► 422
    known, and being dealt with ─────► 409, Retry-After
    unknown, or left by a process that died ─► the view ─► its reply is kept for a day,
                                                           unless trying again may mend it: then the key is free again

A process may die between the effect and the reply. So a view whose effect must not come twice gives it `current_key()` as
a name that is unique: the effect, come again, finds itself there.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

import orjson
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException

from app import context, telemetry
from app.auth import bearer
from app.data import idempotency
from app.data.idempotency import Claim, Ledger, Reply
from app.errors import BadInput, Conflict, Misconfigured, PlatformError, ReplyNotKept
from app.service import Service
from app.web.documents.documenting import Addition, add
from app.web.documents.openapi import problem
from app.web.views.current import resources
from app.web.views.decorating import Run, decorating, runner

V = TypeVar("V", bound=Callable[..., Any])

MAX_BODY_BYTES = 64 * 1024
# A request that has run out of time needs some more to say so.
LEASE_MARGIN_SECONDS = 5.0

_HEADER, _REPLAYED = "Idempotency-Key", "Idempotency-Replayed"
_KEY = re.compile(r"[!-~]{1,255}")
_KEPT_HEADERS = (
    "Content-Location", "Content-Type", "ETag", "Location", "Preference-Applied", "Vary", "WWW-Authenticate",
)  # fmt: skip
# Nothing was done, and trying again may mend it; so may any 5xx.
_PASSING = frozenset({408, 421, 429})

_ATTRIBUTE = "__mesh_idempotent__"
_EXTENSION = "mesh.idempotency"

_current: ContextVar[str | None] = ContextVar("app.web.views.idempotency", default=None)
_log = telemetry.log("web.idempotency")


def idempotent(view: V) -> V:
    """Let a view, async or plain, have its effect once for each Idempotency-Key of a caller.

    It stands below the route and its guard. The service's models have a table by `app.data.idempotency.table`. A request
    is the same if its address and its body are, or the fields of its form; the files in a form are not looked at.
    """

    @decorating(view)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = runner(view, args, kwargs)
        given = request.headers.get(_HEADER)
        return await run() if given is None else await _once(_key_of(given), run)

    setattr(wrapper, _ATTRIBUTE, True)
    return cast(V, add(wrapper, _describe))


def current_key() -> str | None:
    """A name of the request that is being served, the same whenever it comes again, and of no other one; 64 characters.

    None if it has no Idempotency-Key, or the view is not `idempotent`.
    """
    return _current.get()


def require_tables(app: Flask, service: Service) -> None:
    """Raises: Misconfigured: views are idempotent, and `service` has no table for it."""
    named = [name for name, view in app.view_functions.items() if hasattr(view, _ATTRIBUTE)]
    if named and (service.models is None or idempotency.table_name(service.name) not in service.models.tables):
        raise Misconfigured(
            f"Service {service.name}: {', '.join(named)} need idempotency.table(metadata, {service.name!r}) in its models"
        )


async def _once(key: str, run: Run) -> Response:
    ledger, fingerprint = _ledger(), _fingerprint()
    claim = await ledger.claim(key, fingerprint, lease=_lease())
    if isinstance(claim, Reply):
        return _replay(claim)
    # With what it says: a reply is kept for a day, and after that a key may name another request.
    before = _current.set(_digest([key, fingerprint]))
    try:
        response = await _answer(run)
    except BaseException:
        # Also if nobody waits any longer: whoever asks again must not be told that it is being dealt with.
        await asyncio.shield(_forget(ledger, claim))
        raise
    finally:
        _current.reset(before)
    await _settle(ledger, claim, response)
    await ledger.purge_if_due()
    return response


async def _answer(run: Run) -> Response:
    """The view's answer, also where it is an error that is to be kept."""
    try:
        return await run()
    except (PlatformError, HTTPException) as error:
        status = error.status if isinstance(error, PlatformError) else error.code or 500
        if status >= 500:
            raise
        return _explained(error)


def _explained(error: Exception) -> Response:
    return current_app.make_response(current_app.handle_user_exception(error))


async def _settle(ledger: Ledger, claim: Claim, response: Response) -> None:
    if response.status_code >= 500 or response.status_code in _PASSING:
        await _forget(ledger, claim)
        return
    try:
        if not await ledger.keep(claim, _reply_of(response)):
            _log.warning("a request took longer than its lease, and was repeated meanwhile", endpoint=request.endpoint)
    except PlatformError as error:
        # The effect is there, so the answer goes out all the same.
        _log.warning("a reply could not be kept", endpoint=request.endpoint, error=repr(error))


async def _forget(ledger: Ledger, claim: Claim) -> None:
    try:
        await ledger.forget(claim)
    except PlatformError as error:
        _log.warning("a request that failed can be repeated only after its lease", error=repr(error))


def _reply_of(response: Response) -> Reply:
    if not response.is_sequence or len(response.get_data()) > MAX_BODY_BYTES:
        _log.warning("a reply is too large to be kept", endpoint=request.endpoint, bytes=response.content_length)
        response = _explained(ReplyNotKept("The request has been dealt with; its reply was too large to be kept"))
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Reply(response.status_code, headers, response.get_data())


def _replay(reply: Reply) -> Response:
    response = current_app.response_class(reply.body, reply.status)
    # Not the response's own default: what was kept has a content type, or has none on purpose.
    response.headers.clear()
    response.headers.update(reply.headers)
    response.headers[_REPLAYED] = "true"
    return response


def _key_of(given: str) -> str:
    """The key within its scope: the caller and the route. Raises: BadInput."""
    if _KEY.fullmatch(given) is None:
        raise BadInput(f"{_HEADER} must be 1 to 255 visible ASCII characters")
    asking = bearer.current.get().principal
    who = (None, None) if asking is None else (asking.subject, asking.client_id)
    route = request.url_rule.rule if request.url_rule is not None else request.path
    return _digest([*who, request.method, route, given])


def _fingerprint() -> str:
    """What the request says, as a digest."""
    body = hashlib.sha256(request.get_data()).hexdigest()
    # Of a form that has been read, nothing is left but its fields.
    fields = list(request.form.items(multi=True))
    return _digest([request.path, request.query_string.decode("latin-1"), body, fields])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def _lease() -> timedelta:
    """How long this request may take, and a little more."""
    current, longest = context.current(), resources.settings.request_timeout_seconds
    left = longest if current is None else min(longest, current.remaining_seconds())
    return timedelta(seconds=max(0.0, left) + LEASE_MARGIN_SECONDS)


def _ledger() -> Ledger:
    known = current_app.extensions.get(_EXTENSION)
    if known is None:
        own = resources.service
        if resources.database is None or own.models is None:
            raise Misconfigured(f"Service {own.name} has no database")
        table = own.models.tables[idempotency.table_name(own.name)]
        known = current_app.extensions[_EXTENSION] = Ledger(resources.database, table)
    return cast(Ledger, known)


def _describe(method: str, path: str) -> Addition:
    said = "Any 1 to 255 visible ASCII characters: a request that comes again with them is answered as before."
    return Addition(
        asked={_HEADER: said},
        answers={Conflict.status: problem(f"{Conflict.title}, or the same request is still being dealt with")},
        shown={_REPLAYED: "true, if the request had been answered before."},
    )
