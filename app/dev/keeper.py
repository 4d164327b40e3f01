"""One replica kept running.

start ──► running ──ended──► waiting ──back-off──► running …
             └──────── stop ────┴──► stopped
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.dev import ports
from app.dev.nursery import Child, Nursery
from app.dev.plan import Replica
from app.dev.state import Process, Stage


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart: doubling, until a process has stayed up for `steady_seconds`."""

    first_seconds: float = 0.2
    longest_seconds: float = 10.0
    steady_seconds: float = 3.0

    def crashes(self, before: int, lived_seconds: float) -> int:
        """Crashes in a row, now that one more process has ended after `lived_seconds`."""
        return 1 if lived_seconds >= self.steady_seconds else before + 1

    def seconds(self, crashes: int) -> float:
        # The exponent is bounded, since 2.0**1024 is an error.
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(crashes - 1, 16))


class Witness(Protocol):
    """Who wants to know; called on the event loop."""

    def changed(self, keeper: Keeper) -> None:
        """It has a new process, or is at another stage."""

    def ended(self, keeper: Keeper, code: int, again_in_seconds: float) -> None:
        """Its process has ended by itself."""


class Keeper:
    """Starts a replica, restarts it when it ends, stops it when told.

    Args:
        nursery: where its processes come from.
        choose_port: the port for the next start, given the last one (None at first).
        environment: of the process that is about to start on `port`.

    Attributes:
        log: where its processes write; changed when it takes another's place.
        restarts: how often it was started again after a process had ended by itself.
        crashed: set once a process has ended by itself, and not because its port was taken meanwhile.
    """

    def __init__(
        self,
        replica: Replica,
        nursery: Nursery,
        *,
        choose_port: Callable[[int | None], int],
        environment: Callable[[Keeper], Mapping[str, str]],
        log: Path,
        pid_file: Path,
        witness: Witness,
        backoff: Backoff = Backoff(),  # a frozen value
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replica, self.log, self._pid_file = replica, log, pid_file
        self._stage: Stage = "joining"
        self.crashed = asyncio.Event()
        self._nursery = nursery
        self._choose_port, self._environment = choose_port, environment
        self._witness, self._backoff, self._clock = witness, backoff, clock
        self._process: Child | None = None
        self._port: int | None = None
        self.restarts = 0
        self._stopping = asyncio.Event()
        # Held while a process is being made: `stop` must not miss one that is on its way.
        self._making = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Keeper {self.replica.name} {self.stage}, pid {self.pid}, {self.restarts} restarts>"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def stage(self) -> Stage:
        """What it is to the system; whoever replaces it has the say."""
        return self._stage

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._stage = stage
        self._witness.changed(self)

    @property
    def port(self) -> int:
        return self._port or 0

    @property
    def url(self) -> str:
        """Its own address, which nobody else serves."""
        return ports.address(ports.LOOPBACK, self.port)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    def describe(self) -> Process:
        return Process(
            service=self.replica.service,
            number=self.replica.number,
            pid=self.pid,
            url=self.url,
            log=self.log,
            restarts=self.restarts,
            stage=self.stage,
        )

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.replica.name}")

    async def stop(self, *, within_seconds: float) -> bool:
        """End it and wait for it; by force after `within_seconds`. Returns whether it went by itself."""
        async with self._making:
            self._stopping.set()
        process, gracefully = self._process, True
        if process is not None and process.is_running:
            process.send(signal.SIGTERM)
            gracefully = await _ends(process, within_seconds)
        if process is not None and process.is_running:
            process.send(signal.SIGKILL)
            await process.ended()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._pid_file.unlink(missing_ok=True)
        return gracefully

    def kill(self) -> None:
        if self._process is not None:
            self._process.send(signal.SIGKILL)

    async def _keep(self) -> None:
        crashes = 0
        while not self._stopping.is_set():
            began = self._clock()
            async with self._making:
                if self._stopping.is_set():
                    return
                self._process = await self._spawn()
            self._witness.changed(self)
            code = await self._process.ended()
            if self._stopping.is_set():
                return
            if ports.is_free(ports.LOOPBACK, self.port):
                self.crashed.set()
            crashes = self._backoff.crashes(crashes, self._clock() - began)
            pause = self._backoff.seconds(crashes)
            self._witness.ended(self, code, pause)
            await asyncio.sleep(pause)
            self.restarts += 1

    async def _spawn(self) -> Child:
        self._port = self._choose_port(self._port)
        return await self._nursery.fork(
            self.replica.name,
            environment=self._environment(self),
            log=self.log,
            pid_file=self._pid_file,
            inherits=self.replica.is_gateway,
        )


async def _ends(process: Child, within_seconds: float) -> bool:
    try:
        async with asyncio.timeout(within_seconds):
            await process.ended()
    except TimeoutError:
        return False
    return True
