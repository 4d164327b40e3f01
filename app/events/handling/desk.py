"""One event after another: handled, tried again, or given up.

read ──► handler? ──► expired? ──► inbox + handler, in one transaction ──► done
  │        │ none of that version      │ failed: pause, and again … tries are over
  ▼        ▼                           ▼
─────────────────────── buried, with the error ───────────────────────
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app import context, telemetry
from app.context import Context
from app.data import Database
from app.errors import InvalidInput, PlatformError
from app.events.envelope import CloudEvent
from app.events.event import Event
from app.events.handling import handlers as handling_room
from app.events.handling import retrying
from app.events.handling.handlers import Handler, Handlers
from app.events.handling.inbox import Inbox, Known
from app.events.handling.retrying import Again, RetryPolicy
from app.events.observer import EventObserver, Handling, Outcome

_log = telemetry.log("events.desk")

Bury = Callable[[Exception, int], Awaitable[None]]


class Unhandled(InvalidInput):
    """This service knows the event's type, and not this version of it."""

    code, title = "unhandled_event", "No handler for this version"


class Poisonous(PlatformError):
    """It was handed out again and again, and never came to an end."""

    code, title = "poisonous_event", "It ends the processes that handle it"


class Failed(PlatformError):
    """The handler has failed to reach something."""

    code, title = "handler_failed", "The handler failed"


@dataclass(frozen=True, slots=True)
class Times:
    """`handler_seconds`: the longest that one run may take."""

    handler_seconds: float
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong last; without what the error says, which may quote the event."""

    type: str
    id: str
    error: str
    at: datetime


class Desk:
    """Runs the handlers of one process.

    Args:
        slots: so many at once in the process.

    Attributes:
        open: how many handlers run now.
        last_failure: of any of them; None if there was none.
    """

    def __init__(
        self,
        handlers: Handlers,
        database: Database,
        inbox: Inbox,
        *,
        policy: RetryPolicy,
        times: Times,
        slots: asyncio.Semaphore,
        observer: EventObserver,
        rng: random.Random | None = None,
    ) -> None:
        self._handlers, self._database, self._inbox = handlers, database, inbox
        self._policy, self._times, self._slots, self._observer = policy, times, slots, observer
        self._rng = rng or random.Random()
        self.open = 0
        self.last_failure: Failure | None = None

    async def handle(self, event: CloudEvent, bury: Bury, *, deliveries: int) -> None:
        """Return when the event is done with, one way or the other.

        Args:
            bury: takes it to the dead letters, given the error and how often it was tried.
            deliveries: how often it was handed out before.
        """
        handler = self._handlers.find(event.type, event.version)
        try:
            if handler is None:
                raise Unhandled(f"{event.type} version {event.version} has no handler here")
            if deliveries >= retrying.MOST_DELIVERIES:
                raise Poisonous(f"It was handed out {deliveries} times and never came to an end")
            payload = handler.event.model_validate(event.data)
        except (ValidationError, PlatformError) as error:
            await self._give_up(event, error, 0, bury)
            return
        await self._try(handler, event, payload, bury)

    async def _try(self, handler: Handler, event: CloudEvent, payload: Event, bury: Bury) -> None:
        failures = waits = 0
        while True:
            try:
                await self._once(handler, event, payload)
                return
            except PlatformError as error:
                failure: Exception = error
            except Exception as error:  # noqa: BLE001  # a defect of a handler's, which must not end the others
                failure = error
            outside = retrying.is_surroundings(failure)
            failures, waits = (failures, waits + 1) if outside else (failures + 1, 0)
            verdict = retrying.decide(self._policy, failure, failures=failures, waits=waits, rng=self._rng)
            if not isinstance(verdict, Again):
                await self._give_up(event, failure, failures, bury)
                return
            _log.warning(
                "an event is tried again", type=event.type, id=event.id, error=repr(failure), failures=failures,
                seconds=round(verdict.seconds, 3),
            )  # fmt: skip
            await asyncio.sleep(verdict.seconds)

    async def _once(self, handler: Handler, event: CloudEvent, payload: Event) -> None:
        """Run the handler once and tell the observer. Raises what it raises."""
        outcome: Outcome = "cancelled"
        async with self._slots:
            started = self._times.clock()
            self.open += 1
            try:
                outcome = await self._run(handler, event, payload)
            except Exception as error:
                self.last_failure = Failure(event.type, event.id, type(error).__name__, self._times.now())
                outcome = "waiting" if retrying.is_surroundings(error) else "again"
                raise
            finally:
                self.open -= 1
                self._tell(event, outcome, self._times.clock() - started)

    async def _run(self, handler: Handler, event: CloudEvent, payload: Event) -> Outcome:
        now = self._times.now()
        seconds = self._times.handler_seconds
        if event.expires is not None:
            seconds = min(seconds, (event.expires - now).total_seconds())
            if seconds <= 0:
                return "expired"
        deadline = time.monotonic() + seconds
        with handling_room.handling(event), context.activate(_context(event, deadline)):
            async with asyncio.timeout(seconds):
                return await (self._within if handler.transactional else self._outside)(handler, event, payload)

    async def _within(self, handler: Handler, event: CloudEvent, payload: Event) -> Outcome:
        try:
            async with self._database.session() as session:
                await self._inbox.record(session, event.id, self._times.now())
                await self._call(handler, payload, session)
        except Known:
            return "known"
        return "done"

    async def _call(self, handler: Handler, payload: Event, session: AsyncSession) -> None:
        try:
            await handler.call(payload, session)
        except OSError as error:
            # The session would take it for its own: the connection was there, so it is something that the handler asked.
            raise Failed(f"{type(error).__name__}: {error}") from error

    async def _outside(self, handler: Handler, event: CloudEvent, payload: Event) -> Outcome:
        if await self._inbox.known((event.id,)):
            return "known"
        await handler.call(payload)
        try:
            await self._database.transact(lambda session: self._record(session, event))
        except Known:
            return "known"
        return "done"

    async def _record(self, session: AsyncSession, event: CloudEvent) -> None:
        await self._inbox.record(session, event.id, self._times.now())

    async def _give_up(self, event: CloudEvent, error: Exception, tries: int, bury: Bury) -> None:
        _log.error("an event goes to the dead letters", type=event.type, id=event.id, error=repr(error), tries=tries)
        await bury(error, tries)
        self._tell(event, "dead", 0.0)

    def _tell(self, event: CloudEvent, outcome: Outcome, seconds: float) -> None:
        age = (self._times.now() - event.time).total_seconds()
        self._observer.handled(Handling(event.type, outcome, seconds, age))


def _context(event: CloudEvent, deadline: float) -> Context:
    return Context(
        request_id=event.request_id or event.id,
        deadline=deadline,
        caller=event.source.lstrip("/"),
        sandbox=event.sandbox,
        traceparent=event.traceparent,
    )
