"""The outermost layer of a process: gives each request its context, bounds its time, counts and logs it.

It stands outside Flask, so that it sees what Flask can't: the end of a streamed answer, a client that left, a
request that the gateway proxied.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from app import context, deadline, telemetry
from app.deadline import Deadline
from app.errors import DeadlineExceeded, PlatformError
from app.web import problems

_WANTED = {
    name.encode(): name
    for name in (
        context.REQUEST_ID,
        context.TIMEOUT_MS,
        context.CALLER,
        context.ATTEMPT,
        context.SANDBOX,
        context.PRIORITY,
        context.TRACEPARENT,
        "grpc-timeout",
        "x-envoy-expected-rq-timeout-ms",
    )
}
# Probes and scrapes would drown the requests that matter.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})

CLIENT_CLOSED_REQUEST = 499  # nginx's code for a client that left before its answer; it is only ever logged

# What only a peer may say of itself.
_OF_PEERS = frozenset({context.CALLER, context.ATTEMPT, context.PRIORITY})

_log = telemetry.log("web.access")


class Entry:
    """ASGI middleware around a whole service.

    Args:
        app: what serves the request.
        metrics: counts it.
        max_seconds: the longest that a request may take until its answer begins.
        public: strangers call here, so who they say they are means nothing.
    """

    def __init__(self, app: Any, *, metrics: telemetry.Metrics, max_seconds: float, public: bool = False) -> None:
        self.app = app
        self._metrics = metrics
        self._max_seconds = max_seconds
        self._wanted = {name: wanted for name, wanted in _WANTED.items() if not (public and wanted in _OF_PEERS)}
        self.draining = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        names = self._wanted
        wanted = {names[name]: value.decode("latin-1") for name, value in scope["headers"] if name in names}
        ctx = context.from_headers(wanted, max_seconds=self._max_seconds, now=started)
        answer = _Answer(send, ctx.request_id, farewell=self.draining and scope["http_version"] in ("1.0", "1.1"))
        self._metrics.in_flight.inc()
        with context.activate(ctx):
            try:
                await self._serve(scope, receive, answer, ctx)
            finally:
                self._metrics.in_flight.dec()
                self._report(scope, answer, ctx, time.monotonic() - started)

    async def _serve(self, scope: Any, receive: Any, answer: _Answer, ctx: context.Context) -> None:
        try:
            await self._in_time(scope, receive, answer, ctx)
        except PlatformError as error:
            await answer.fail(error, scope["path"], error)
        except Exception as error:  # noqa: BLE001  # the last stop: whatever it is, the client gets a problem document
            _log.error("request failed outside the application", exc_info=error)
            await answer.fail(PlatformError(), scope["path"], error)

    async def _in_time(self, scope: Any, receive: Any, answer: _Answer, ctx: context.Context) -> None:
        left = ctx.remaining_seconds()
        if left <= 0:
            raise DeadlineExceeded("There is no time left for this request")
        bound = deadline.of(asyncio.get_running_loop()).within(left)
        try:
            with bound as answer.bound:
                await self.app(scope, receive, answer)
        except TimeoutError as error:
            if not bound.fired:
                raise
            raise DeadlineExceeded("The time for this request ran out") from error

    def _report(self, scope: Any, answer: _Answer, ctx: context.Context, seconds: float) -> None:
        route, method, status = scope.get("route", ""), scope["method"], answer.status or CLIENT_CLOSED_REQUEST
        self._metrics.observe_request(method=method, route=route, status=status, seconds=seconds)
        if scope["path"] not in _QUIET:
            _log.info(
                "request",
                method=method,
                path=scope["path"],
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
                caller=ctx.caller,
            )


class _Answer:
    """ASGI's send, watched: it adds the request id, and remembers how far the answer has come."""

    __slots__ = ("_farewell", "_request_id", "_send", "bound", "status")

    def __init__(self, send: Any, request_id: str, *, farewell: bool) -> None:
        self._send = send
        self._request_id = request_id.encode("latin-1")
        self._farewell = farewell
        self.status = 0
        self.bound: Deadline | None = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            headers.append((b"x-request-id", self._request_id))
            if self._farewell:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
            # The bound is on the wait for an answer: a long download or an event stream may go on.
            if self.bound is not None:
                self.bound.lift()
        await self._send(message)

    async def fail(self, error: PlatformError, path: str, cause: BaseException) -> None:
        """Answer with `error`; where an answer has begun, only breaking it off is honest."""
        if self.status:
            raise cause
        self.bound = None
        await problems.send(self, error, instance=path)
