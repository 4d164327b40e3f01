"""What a call may ask for beyond being made: a shared flight, a second runner, something in the place of a failure.

    fallback ( share ( hedge ( attempts ) ) )

All opt-in; a call that asks for nothing never comes here.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from typing import NamedTuple

from app import context
from app.deadline import Deadlines
from app.errors import DeadlineExceeded, MeshError
from app.mesh.calling import hedge
from app.mesh.calling.attempts import Attempts
from app.mesh.calling.call import Call
from app.mesh.calling.flight import Flights
from app.mesh.calling.hedge import Run, Winner
from app.mesh.calling.reply import Reply
from app.mesh.calling.stale import Shelf
from app.mesh.observer import Decision, Kind, Observer

Fallback = Callable[[MeshError], Reply | Awaitable[Reply]]

# RFC 5861, 4: the failures in whose place something stale is welcome.
_FAILURES = frozenset({500, 502, 503, 504})
# A flight has so many times its call's time, so that those who join late have theirs.
_FLIGHT_TIMES = 2.0
# The same question has the same answer whatever these say; all other headers are part of the question.
_NOT_IN_KEY = frozenset({
    context.REQUEST_ID, context.TRACEPARENT, context.TIMEOUT_MS, context.ATTEMPT, context.CALLER, context.TARGET,
    context.PRIORITY,
})  # fmt: skip
_AUTHORIZATION = frozenset({"authorization"})


class Wishes(NamedTuple):
    """What one call asks for; `Mesh.request` says what each means."""

    hedge: bool
    share: bool
    fallback: Fallback | None
    stale_seconds: float


class Extras:
    """Grants wishes around `attempts`.

    Args:
        clock: monotonic seconds.
        max_stale_bytes: how much is remembered for `Wishes.stale_seconds`.
    """

    def __init__(
        self,
        attempts: Attempts,
        *,
        deadlines: Deadlines,
        observer: Observer,
        clock: Callable[[], float],
        max_stale_bytes: int,
    ) -> None:
        self._attempts, self._deadlines, self._observer, self._clock = attempts, deadlines, observer, clock
        self.flights: Flights[Hashable, Reply] = Flights()
        self.shelf = Shelf(max_stale_bytes)

    async def run(self, call: Call, wishes: Wishes, *, failed: MeshError | None = None) -> Reply:
        """As `Attempts.run`; what `wishes.fallback` raises is raised.

        Args:
            failed: why the call cannot even be made; something may stand in for it all the same.
        """
        try:
            reply = await self._run(call, wishes, failed)
        except MeshError as error:
            _note_end(call, self._clock(), error.code)
            raise
        _note_end(call, self._clock(), f"status {reply.status}")
        return reply

    async def _run(self, call: Call, wishes: Wishes, failed: MeshError | None) -> Reply:
        try:
            self._attempts.begin(call)
            if failed is not None:
                raise failed
            shared = wishes.share and call.method == "GET"
            reply = await (self._share(call, wishes) if shared else self._hedge(call, wishes))
        except MeshError as error:
            return await self._instead(call, wishes, error, None)
        if reply.status in _FAILURES:
            return await self._instead(call, wishes, reply.as_error(), reply)
        if wishes.stale_seconds and call.method == "GET" and reply.status == 200:
            self.shelf.keep(_key(call), reply, self._clock())
        return reply

    # ------------------------------------------------------------------------------------- fallback

    async def _instead(self, call: Call, wishes: Wishes, error: MeshError, reply: Reply | None) -> Reply:
        """Something in the place of a failure; without anything, the failure itself."""
        stale = self._stale(call, wishes.stale_seconds)
        if stale is not None:
            self._decide(call, "fallback", "stale")
            return stale
        if wishes.fallback is None:
            if reply is None:
                raise error
            return reply
        given = wishes.fallback(error)
        self._decide(call, "fallback", "function")
        return replace(await given if inspect.isawaitable(given) else given, fallback="function")

    def _stale(self, call: Call, seconds: float) -> Reply | None:
        if not seconds or call.method != "GET" or not call.started_at:
            return None
        return self.shelf.find(_key(call), self._clock(), no_older_than=seconds)

    # ------------------------------------------------------------------------------------- one flight

    async def _share(self, call: Call, wishes: Wishes) -> Reply:
        key, own_deadline = _key(call), call.deadline
        seconds = own_deadline - call.started_at
        led = not self.flights.is_under_way(key, own_deadline)
        self._decide(call, "flight", "led" if led else "joined")
        ends_at = call.started_at + _FLIGHT_TIMES * seconds
        if led:
            # The flight is not its leader's alone: it has time for those who join it.
            call.deadline = ends_at
        try:
            with self._deadlines.within(seconds):
                return await self.flights.join(
                    key, lambda: self._hedge(call, wishes), until=own_deadline, ends_at=ends_at
                )
        except TimeoutError as error:
            raise DeadlineExceeded(f"{call.service}: no reply in time to a shared call") from error

    # ------------------------------------------------------------------------------------- a second runner

    async def _hedge(self, call: Call, wishes: Wishes) -> Reply:
        after_seconds = call.target.latencies.p99
        if not (wishes.hedge and call.idempotent and call.is_whole) or after_seconds is None:
            return await self._attempts.run(call)
        reply, winner = await hedge.race(
            lambda: self._attempts.run(call), lambda: self._second(call), after_seconds=after_seconds
        )
        if winner is not Winner.ALONE:
            self._decide(call, "hedge", "won" if winner is Winner.SECOND else "lost")
        return reply

    def _second(self, call: Call) -> Run | None:
        """Another peer is asked as well, if there is one and the service's budget has room for it."""
        now = self._clock()
        if call.deadline <= now or not self._attempts.has_others(call):
            return None
        if not call.target.budget.withdraw(now):
            self._decide(call, "hedge", "no_budget")
            return None
        call.target.hedges += 1
        self._decide(call, "hedge", "sent")
        twin = call.twin()
        return lambda: self._attempts.run(twin)

    def _decide(self, call: Call, kind: Kind, outcome: str) -> None:
        self._observer.decision(Decision(kind, call.service, outcome))
        if call.trace is not None:
            call.trace.note(self._clock(), f"{kind}: {outcome}")


def _note_end(call: Call, now: float, outcome: str) -> None:
    if call.trace is not None:
        call.trace.ended(now, outcome)


def _key(call: Call) -> Hashable:
    """The same for two calls only if one answer may serve both: users and sandboxes are told apart by their headers."""
    left_out = _NOT_IN_KEY | _AUTHORIZATION if call.own_token else _NOT_IN_KEY
    return (
        call.service,
        call.path,
        call.sticky,
        call.own_token,
        frozenset(item for item in call.headers.items() if item[0] not in left_out),
    )
