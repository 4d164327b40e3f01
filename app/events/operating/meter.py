"""What waits, measured every few seconds by the one process that sends a service's events, for a graph and an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from app import telemetry
from app.errors import PlatformError, Unavailable
from app.events.observer import EventObserver, Measurement
from app.events.operating.survey import add_up
from app.events.operating.surveyor import Surveyor
from app.events.publishing.ledger import Ledger
from app.mesh.keys import EventStream, Keys
from app.mesh.registry.directory import cancelled

_log = telemetry.log("events.meter")


class Meter:
    """Tells the observer how much waits, while it is this process's turn. An async context manager.

    Args:
        leading: whether this process sends.
        up: whether Redis answers: without it nobody is known to send, and whoever did goes on measuring the outbox, which
            grows just then.
        now: the time, with its zone.
    """

    def __init__(
        self,
        service: str,
        partitions: int,
        ledger: Ledger,
        surveyor: Surveyor,
        *,
        keys: Keys,
        leading: Callable[[], bool],
        up: Callable[[], bool],
        observer: EventObserver,
        every_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._service, self._ledger, self._surveyor = service, ledger, surveyor
        self._streams = [EventStream(keys.events(service, p), "events", service, p) for p in range(partitions)]
        self._dead = keys.dead(service)
        self._leading, self._up, self._observer = leading, up, observer
        self._every_seconds, self._now = every_seconds, now
        self._measuring = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Meter of {self._service}, {'measuring' if self._measuring else 'idle'}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._live(), name="events.meter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await cancelled([self._task])

    async def _live(self) -> None:
        while True:
            try:
                await self.step()
            except PlatformError as error:
                _log.info("what waits could not be measured", reason=error.code, detail=error.detail)
                self._observer.measured(None)
            except Exception:  # noqa: BLE001  # a defect here must not end the measuring for good
                _log.exception("what waits could not be measured")
            await asyncio.sleep(self._every_seconds)

    async def step(self) -> None:
        """Measure if it is our turn. Raises: Unavailable: the database is away."""
        was_measuring, self._measuring = self._measuring, self._leading() or (self._measuring and not self._up())
        if self._measuring:
            self._observer.measured(await self._measure())
        elif was_measuring:
            self._observer.measured(None)

    async def _measure(self) -> Measurement:
        now = self._now()
        backlog = await self._ledger.backlog(now)
        age = 0.0 if backlog.oldest is None else max(0.0, (now - backlog.oldest).total_seconds())
        outbox = Measurement(self._service, backlog.waiting, age)
        try:
            standings = add_up(await self._surveyor.read(self._streams))
            dead = await self._surveyor.length(self._dead)
        except Unavailable:
            return outbox
        lags = {standing.group: standing.waiting.number for standing in standings}
        return outbox._replace(lags=lags, open={s.group: s.open for s in standings}, dead=dead)
