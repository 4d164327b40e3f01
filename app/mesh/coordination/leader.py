"""A periodic job that exactly one of all processes runs: the one that holds the job's lease.

    FOLLOWER ──── lease acquired ────► LEADER: work, pause, work, pause …
       ▲                                 │
       └── lease lost: work cancelled ───┘

Followers ask again when the present lease would end: a leader that dies (kill -9) is followed within one lease. One that
was paused finds its lease lost when it wakes; until its work hears of that, the fencing token tells its late writes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from app import telemetry
from app.errors import LeaseLost, Unavailable
from app.mesh.coordination import line as lines
from app.mesh.coordination.lease import Held, Lease
from app.mesh.coordination.line import Line
from app.mesh.keys import Keys
from app.mesh.observer import Decision, Observer
from app.mesh.registry.directory import cancelled

_log = telemetry.log("mesh.leader")

_RHYTHM = lines.load("app.mesh.coordination", "rhythm")
_JITTER = 0.1
_AWAY_SECONDS = 1.0

Work = Callable[[Held], Awaitable[object]]


class PeriodicJob:
    """Runs `work` about every `every` seconds in one process of all that have this job. An async context manager.

    Leaving the block cancels a run that is under way, waits for its end and gives the lease back. A run that fails is
    logged, and the next one comes as usual; runs never overlap. A new leader keeps the rhythm of the one before, and
    repeats at once a run that it did not end.

    Args:
        name: the job's, the same in all processes.
        work: gets the held lease, whose token belongs on what it writes.
        every: seconds between two runs, ± 10 %.
        ttl: seconds of the lease: within that time another process takes over.
        look: seconds after which a follower asks again at the latest, in case that the lease was given back; by default when
            it would end.
    """

    def __init__(
        self,
        name: str,
        *,
        work: Work,
        every: float,
        ttl: float,
        look: float | None = None,
        line: Line,
        keys: Keys,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self._work, self._every, self._look = work, every, ttl if look is None else look
        self._line, self._keys, self._observer = line, keys, observer
        self._clock, self._rng = clock, rng or random.Random()
        self._lease = Lease(f"job:{name}", ttl_seconds=ttl, line=line, keys=keys, clock=clock, rng=self._rng)
        self._task: asyncio.Task[None] | None = None
        self._held: Held | None = None

    def __repr__(self) -> str:
        return f"<PeriodicJob {self.name}, every {self._every} s, {self._held or 'follower'}>"

    @property
    def leading(self) -> bool:
        """Whether this process runs the job, as far as it knows."""
        return self._held is not None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._live(), name=f"mesh.job.{self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await cancelled([self._task])

    async def _live(self) -> None:
        while True:
            try:
                pause = await self._campaign()
            except Unavailable:  # also LeaseLost: back to the others
                pause = _AWAY_SECONDS * self._rng.uniform(0.5, 1.5)
            await asyncio.sleep(min(pause, self._look))

    async def _campaign(self) -> float:
        """Try to lead, and lead; returns the seconds until the next try makes sense."""
        found = await self._lease.acquire()
        if not isinstance(found, Held):
            return found + self._rng.uniform(0, _JITTER) * self._lease.ttl_seconds
        try:
            async with self._lease.keeping(found) as self._held:
                self._decide("leading", str(found.token))
                await self._lead(found)
        except LeaseLost:
            self._decide("lost", str(found.token))
            raise
        finally:
            self._held = None
        return 0.0

    async def _lead(self, held: Held) -> None:
        pause = await self._rhythm() / 1000
        while True:
            await asyncio.sleep(pause)
            held.check()
            started = self._clock()
            await self._run(held)
            period = self._every * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
            pause = max(0.0, period - (self._clock() - started))
            if pause > self._lease.ttl_seconds:  # a shorter one is not worth a command with every run
                await self._rhythm(int(pause * 1000))

    async def _rhythm(self, *next_ms: int) -> int:
        """The ms until the next run: as the last leader left it, or as it is to be from now on."""
        try:
            return int(await self._line.run(_RHYTHM, (self._keys.job(self.name),), next_ms))
        except Unavailable:
            return 0

    async def _run(self, held: Held) -> None:
        try:
            await self._work(held)
        except LeaseLost:
            raise
        except Exception:  # noqa: BLE001  # one run that fails does not end the job
            _log.exception("a run of a periodic job failed", job=self.name, fencing=held.token)
            self._decide("failed")
        else:
            self._decide("ran")

    def _decide(self, outcome: str, detail: str = "") -> None:
        self._observer.decision(Decision("leader", self.name, outcome, detail=detail))
