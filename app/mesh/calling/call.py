"""One call while it lasts: what it asks for, what stays the same over its attempts, and what they have tried."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from app import context
from app.context import Context, Priority
from app.errors import DeadlineExceeded
from app.mesh.calling import headers as wire
from app.mesh.calling import retry
from app.mesh.calling.exchange import Body, Headers
from app.mesh.calling.explain import Trace
from app.mesh.calling.target import Target
from app.mesh.registry.record import Instance


class Call:
    """What is asked of a service. `begin` sets the clock running; the fields below it change from attempt to attempt.

    Args:
        headers: by name in any case, or pairs whose order and duplicates matter.
        timeout: seconds for the whole call; None for the service's own.
        attempt_timeout: seconds for one attempt's silence, if another peer could be asked; None for the usual.
        sticky: whatever has the same key goes to the same instance, as long as it is there.
        trace: listens to what happens, if anybody wants to know.
    """

    __slots__ = (
        "aimed_at", "allowed", "attempt_timeout", "content", "deadline", "headers", "idempotency_key", "idempotent", "json",
        "left", "method", "number", "own_token", "paid", "path", "peer", "policy", "priority", "sandbox", "seen", "service", "started_at", "sticky",
        "target", "timeout", "trace", "tried", "unseen",
    )  # fmt: skip

    target: Target
    policy: retry.Policy
    deadline: float
    idempotent: bool
    sandbox: str | None
    # Of the attempt that is being made: at whom, since when, how long it may be silent, how long it may take.
    peer: Instance
    aimed_at: float
    allowed: float
    left: float

    def __init__(
        self,
        method: str,
        service: str,
        path: str,
        *,
        headers: Mapping[str, str] | list[tuple[str, str]] | None,
        content: bytes | AsyncIterator[bytes] | None,
        json: Any = None,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        idempotency_key: str | None = None,
        priority: Priority | None = None,
        sticky: str | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.method, self.service, self.path = method, service, path
        self.headers: Any = headers
        self.content: Any = content
        self.json, self.idempotency_key = json, idempotency_key
        self.timeout, self.attempt_timeout = timeout, attempt_timeout
        self.priority, self.sticky, self.trace = priority, sticky, trace
        self.started_at = 0.0
        self.number = 1
        self.seen = self.unseen = 0
        # Whether the budget has been asked for the next attempt already.
        self.paid = False
        # Whether its Authorization says who we are, and not who asks us: as good as any other one of ours.
        self.own_token = False
        self.tried: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.service} {self.path}, attempt {self.number}>"

    def begin(self, target: Target, current: Context | None, now: float) -> None:
        """Raises: DeadlineExceeded: there is no time left to do anything in."""
        self.target, self.started_at = target, now
        self.deadline = now + (target.timeout_seconds if self.timeout is None else self.timeout)
        self.policy, self.sandbox = target.policy, None
        if current is not None:
            self.deadline = min(self.deadline, current.deadline - context.HOP_RESERVE_SECONDS)
            self.sandbox = current.sandbox
            if current.attempt > 1 and self.policy is not retry.NEVER:
                self.policy = retry.ONCE
        headers = self._own_headers()
        self.idempotent = self.method in retry.IDEMPOTENT_METHODS or wire.has_idempotency_key(headers)
        self.headers = wire.of_call(headers, current, now, priority=self.priority)
        if self.deadline <= now:
            raise DeadlineExceeded(f"{self.service}: no time was left to call it")

    def _own_headers(self) -> Headers:
        """Those of the caller, names in lower case; the content made ready on the way."""
        given = self.headers
        if self.content is not None and not isinstance(self.content, bytes):
            self.content = Body(self.content)
        if isinstance(given, list):
            return [(name.lower(), value) for name, value in given]
        headers = {name.lower(): value for name, value in given.items()} if given else {}
        if self.json is not None:
            self.content = orjson.dumps(self.json)
            headers.setdefault("content-type", "application/json")
        if self.idempotency_key is not None:
            headers[wire.IDEMPOTENCY_KEY] = self.idempotency_key
        return headers

    def aim(self, peer: Instance, now: float) -> None:
        """The next attempt goes to `peer`."""
        self.peer, self.aimed_at = peer, now
        self.allowed = self.left = self.deadline - now

    def may_be_cut_short(self, now: float) -> bool:
        """Whether one more attempt could follow this one: safe, allowed, and paid for."""
        return (
            self.idempotent and self.seen < self.policy.retries and self.is_whole and self.target.budget.left(now) >= 1
        )

    def cut_short(self) -> None:
        """This attempt may not be silent for as long as the call may take: somebody else could be asked."""
        bound = self.attempt_timeout
        self.allowed = min(self.left, self.target.attempt_seconds(self.left) if bound is None else bound)

    @property
    def is_whole(self) -> bool:
        """Whether all of its body is at hand, so that two attempts can send it, even side by side."""
        return not isinstance(self.content, Body)

    @property
    def repeatable(self) -> bool:
        """A body that comes piece by piece can be sent only once."""
        return not (isinstance(self.content, Body) and self.content.begun)

    def repeat(self, *, free: bool) -> None:
        """One more attempt follows; `free` if nobody can have begun with the last one."""
        if self.peer.id not in self.tried:
            self.tried += (self.peer.id,)
        self.number += 1
        if free:
            self.unseen += 1
        else:
            self.seen += 1

    def report(self, now: float, *, outcome: str, kind: str, then: str) -> None:
        """The trace, if there is one, hears how this attempt has ended."""
        if self.trace is not None:
            self.trace.tried(
                self.aimed_at,
                now,
                number=self.number,
                instance=self.peer.id,
                url=self.peer.url,
                allowed_seconds=self.allowed,
                outcome=outcome,
                kind=kind,
                then=then,
            )

    def twin(self) -> Call:
        """The same call for a second attempt beside this one, at another peer; it is not repeated."""
        twin = object.__new__(Call)
        for name in Call.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.headers = self.headers.copy()
        twin.tried = (*self.tried, self.peer.id)
        twin.number = self.number + 1
        twin.policy = retry.NEVER
        return twin
