"""What belongs to one request and travels with it: one contextvar that holds one frozen value.

Times are seconds of ``time.monotonic()``; on the wire the *remaining* time travels in milliseconds, because
clocks of two machines differ and durations do not.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

REQUEST_ID = "x-request-id"
TIMEOUT_MS = "x-request-timeout-ms"
CALLER = "x-mesh-caller"
ATTEMPT = "x-mesh-attempt"
SANDBOX = "x-mesh-sandbox"
PRIORITY = "x-mesh-priority"
# The id of the instance that a request is meant for: an address may have been taken over by another process.
TARGET = "x-mesh-target"
# Of replies to ``/livez``: the id of the instance that answers.
INSTANCE = "x-mesh-instance"
# Of replies: the peer did nothing, and says why (``overloaded``, ``misdirected``), so any method may be repeated.
UNPROCESSED = "x-mesh-unprocessed"
# Of replies: the peer is about to leave; who sees it picks another one from now on.
DRAINING = "x-mesh-draining"
TRACEPARENT = "traceparent"

# What a call keeps back of the remaining time, so that a reply can still be written when a peer runs out of it.
HOP_RESERVE_SECONDS = 0.005

Priority = Literal["critical", "normal", "sheddable"]
_PRIORITIES: dict[str, Priority] = {"critical": "critical", "normal": "normal", "sheddable": "sheddable"}

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Context:
    """One request: its id, its deadline (monotonic seconds, ``inf`` for none), who asked, and for which time.

    `attempt` is above 1 where the caller asks again: what it then calls itself is not tried again, since with every
    layer that repeats the load would multiply. `priority` says who is shed first when a process has too much to do.
    """

    request_id: str
    deadline: float = float("inf")
    caller: str | None = None
    sandbox: str | None = None
    traceparent: str | None = None
    attempt: int = 1
    priority: Priority = "normal"

    def remaining_seconds(self, now: float | None = None) -> float:
        return self.deadline - (time.monotonic() if now is None else now)

    def outbound_headers(self, now: float | None = None) -> dict[str, str]:
        """The headers that carry this context to a peer; the deadline leaves ``HOP_RESERVE_SECONDS`` behind."""
        headers = {REQUEST_ID: self.request_id}
        if self.deadline != float("inf"):
            left = self.remaining_seconds(now) - HOP_RESERVE_SECONDS
            headers[TIMEOUT_MS] = str(max(0, int(left * 1000)))
        if self.sandbox is not None:
            headers[SANDBOX] = self.sandbox
        if self.priority != "normal":
            headers[PRIORITY] = self.priority
        if self.traceparent is not None:
            headers[TRACEPARENT] = self.traceparent
        return headers


_current: ContextVar[Context | None] = ContextVar("app.context", default=None)


def current() -> Context | None:
    """The context of the request that is being served here, if any."""
    return _current.get()


@contextmanager
def activate(context: Context) -> Iterator[Context]:
    """Make `context` the current one for the length of the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def new_request_id() -> str:
    return os.urandom(12).hex()


def from_headers(headers: Mapping[str, str], *, max_seconds: float, now: float | None = None) -> Context:
    """Read a context from lower-case request headers; what is malformed is ignored, never an error.

    Args:
        headers: lower-case name → value.
        max_seconds: the server's own longest time for a request; the header may only shorten it.
        now: monotonic seconds, injected by tests.
    """
    now = time.monotonic() if now is None else now
    return Context(
        request_id=_safe(headers.get(REQUEST_ID)) or new_request_id(),
        deadline=now + min(max_seconds, _timeout_seconds(headers)),
        caller=_safe(headers.get(CALLER)),
        sandbox=_safe(headers.get(SANDBOX)),
        traceparent=_safe(headers.get(TRACEPARENT)),
        attempt=_attempt(headers.get(ATTEMPT, "")),
        priority=_PRIORITIES.get(headers.get(PRIORITY, ""), "normal"),
    )


def _safe(value: str | None) -> str | None:
    return value if value is not None and _SAFE_ID.fullmatch(value) else None


def _attempt(raw: str) -> int:
    return int(raw) if raw.isascii() and raw.isdigit() and len(raw) <= 3 else 1


def _timeout_seconds(headers: Mapping[str, str]) -> float:
    raw = headers.get(TIMEOUT_MS) or headers.get("x-envoy-expected-rq-timeout-ms")
    if raw is not None and raw.isascii() and raw.isdigit() and len(raw) < 12:
        return int(raw) / 1000
    return _grpc_timeout_seconds(headers.get("grpc-timeout", ""))


_GRPC_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _grpc_timeout_seconds(raw: str) -> float:
    """gRPC's form: at most eight digits and a unit, as in ``250m``."""
    digits, unit = raw[:-1], raw[-1:]
    if unit in _GRPC_UNITS and digits.isascii() and digits.isdigit() and len(digits) <= 8:
        return int(digits) * _GRPC_UNITS[unit]
    return float("inf")
