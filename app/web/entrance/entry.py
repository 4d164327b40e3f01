"""The outermost layer of a process: gives each request its context, bounds its time, counts and logs it.

It stands outside Flask, so that it sees what Flask can't: the end of a streamed answer, a client that left, a
request that the gateway proxied. And it is where a request ends that should not have come here: it was meant for
another instance, or too many are waiting already. Such an answer says that nothing was done.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from app import context, deadline, telemetry
from app.deadline import Deadline
from app.errors import DeadlineExceeded, Misdirected, Overloaded, PlatformError
from app.web import problems
from app.web.bridge import environ
from app.web.bridge.answer import send_whole
from app.web.bridge.inbox import Inbox
from app.web.entrance.intake import Intake, Pace
from app.web.entrance.shedding import Gate, Slot

_WANTED = {
    name.encode(): name
    for name in (
        context.REQUEST_ID,
        context.TIMEOUT_MS,
        context.CALLER,
        context.ATTEMPT,
        context.SANDBOX,
        context.PRIORITY,
        context.TARGET,
        context.TRACEPARENT,
        "grpc-timeout",
        "x-envoy-expected-rq-timeout-ms",
    )
}
# Probes and scrapes would drown the requests that matter.
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})
# Who looks after a process must see it when it is overloaded, too.
_EXEMPT = _QUIET | {"/_mesh"}
_LIVENESS = "/livez"

CLIENT_CLOSED_REQUEST = 499  # nginx's code for a client that left before its answer; it is only ever logged

# What only a peer may say.
_OF_PEERS = frozenset({context.CALLER, context.ATTEMPT, context.PRIORITY, context.TARGET})

_UNPROCESSED, _DRAINING, _INSTANCE = (
    name.encode() for name in (context.UNPROCESSED, context.DRAINING, context.INSTANCE)
)
_RETRY_AFTER_SECONDS = 1.0

Headers = list[tuple[bytes, bytes]]

_log = telemetry.log("web.access")


class Entry:
    """ASGI middleware around a whole service.

    Args:
        app: what serves the request.
        metrics: counts it.
        max_seconds: the longest that a request may take until its answer begins.
        gate: how many may wait for an answer at once.
        pace: the slowest that a body may come.
        public: strangers call here, so who they say they are means nothing, and what peers tell each other stays out.
    """

    def __init__(
        self,
        app: Any,
        *,
        metrics: telemetry.Metrics,
        max_seconds: float,
        gate: Gate | None = None,
        pace: Pace | None = None,
        public: bool = False,
    ) -> None:
        self.app = app
        self.gate, self._pace = gate or Gate(), pace or Pace()
        self._metrics = metrics
        self._max_seconds = max_seconds
        self._public = public
        self._wanted = {name: wanted for name, wanted in _WANTED.items() if not (public and wanted in _OF_PEERS)}
        # Known once the process is registered: until then, nobody can mean it by its name.
        self.instance_id: str | None = None
        self.draining = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        names = self._wanted
        wanted = {names[name]: value.decode("latin-1") for name, value in scope["headers"] if name in names}
        ctx = context.from_headers(wanted, max_seconds=self._max_seconds, now=started)
        answer = _Answer(send, ctx.request_id, self._farewell(scope) if self.draining else None)
        self._metrics.in_flight.inc()
        with context.activate(ctx):
            try:
                if context.TARGET in wanted and self._is_misdirected(wanted[context.TARGET]):
                    await self._turn_away(Misdirected("Another instance was meant"), scope, receive, answer)
                elif scope["path"] in _EXEMPT:
                    self._introduce(scope, answer)
                    await self._serve(scope, receive, answer, ctx)
                else:
                    await self._serve_in_slot(scope, receive, answer, ctx, started)
            finally:
                self._metrics.in_flight.dec()
                self._report(scope, answer, ctx, time.monotonic() - started)

    async def _serve_in_slot(
        self, scope: Any, receive: Any, answer: _Answer, ctx: context.Context, started: float
    ) -> None:
        slot = self.gate.enter(ctx.priority, started)
        if slot is None:
            error = Overloaded("Too many requests are waiting here", retry_after=_RETRY_AFTER_SECONDS)
            await self._turn_away(error, scope, receive, answer)
            return
        answer.slot = slot
        if environ.has_body(scope):
            receive = Intake(receive, slot, self._pace)
        try:
            await self._serve(scope, receive, answer, ctx)
        finally:
            slot.abandoned(time.monotonic())

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

    async def _turn_away(self, error: Overloaded | Misdirected, scope: Any, receive: Any, answer: _Answer) -> None:
        """Answer without having done anything; the connection is kept, if the request's body is at hand."""
        if not self._public:
            answer.extra.append((_UNPROCESSED, error.code.encode()))
        answer.turned_away = True
        start, body = problems.messages(error, instance=scope["path"])
        inbox = Inbox(receive, has_body=environ.has_body(scope))
        await send_whole(answer, inbox, start, body, scope["http_version"])

    def _is_misdirected(self, target: str) -> bool:
        return self.instance_id is not None and target != self.instance_id

    def _introduce(self, scope: Any, answer: _Answer) -> None:
        if scope["path"] == _LIVENESS and self.instance_id is not None:
            answer.extra.append((_INSTANCE, self.instance_id.encode()))

    def _farewell(self, scope: Any) -> Headers:
        told = [] if self._public else [(_DRAINING, b"1")]
        return [*told, (b"connection", b"close")] if scope["http_version"] in ("1.0", "1.1") else told

    def _report(self, scope: Any, answer: _Answer, ctx: context.Context, seconds: float) -> None:
        route, method, status = scope.get("route", ""), scope["method"], answer.status or CLIENT_CLOSED_REQUEST
        self._metrics.observe_request(method=method, route=route, status=status, seconds=seconds)
        # What is turned away comes in masses; the gate says how many.
        if scope["path"] not in _QUIET and not answer.turned_away:
            _log.info(
                "request",
                method=method,
                path=scope["path"],
                route=route,
                status=status,
                ms=round(seconds * 1000, 2),
                caller=ctx.caller,
                subject=scope.get("subject"),
            )


class _Answer:
    """ASGI's send, watched: it adds the request id, and remembers how far the answer has come."""

    __slots__ = ("_request_id", "_send", "bound", "extra", "slot", "status", "turned_away")

    def __init__(self, send: Any, request_id: str, farewell: Headers | None) -> None:
        self._send = send
        self._request_id = request_id.encode("latin-1")
        self.extra: Headers = farewell or []
        self.status = 0
        self.turned_away = False
        self.bound: Deadline | None = None
        self.slot: Slot | None = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
        await self._send(message)

    def _begin(self, message: Any) -> None:
        self.status = message["status"]
        headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
        headers.append((b"x-request-id", self._request_id))
        headers += self.extra
        message["headers"] = headers
        # The bound is on the wait for an answer: a long download or an event stream may go on.
        if self.bound is not None:
            self.bound.lift()
        if self.slot is not None:
            self.slot.answered(self.status, time.monotonic())

    async def fail(self, error: PlatformError, path: str, cause: BaseException) -> None:
        """Answer with `error`; where an answer has begun, only breaking it off is honest."""
        if self.status:
            raise cause
        self.bound = None
        await problems.send(self, error, instance=path)
