"""Which partitions this process works on: each has one owner among the processes of the service, by a lease.

    WAITING ────────── nobody has it: acquire ─────────► WORKING
       ▲                                                   │
       ├── the lease was lost: what is under way ends ─────┤
       └── whose it should be has asked for it: finish ────┘

Whose a partition should be follows from who is ready (rendezvous hashing), so everybody comes to the same answer without asking.
Whoever finds it free takes it nevertheless: the one whose it should be may be dead, and not yet forgotten; once it asks, it gets
it. The lease decides when they disagree; and should even that fail, the inbox.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from app import telemetry
from app.errors import LeaseLost, Unavailable
from app.events import partition as partitions
from app.events.handling.wishes import Wishes
from app.events.handling.worker import Worker
from app.mesh.coordination import Held, Lease
from app.mesh.registry.directory import cancelled

_log = telemetry.log("events.consumer")

# Whose it should be asks again this soon, everybody else later.
_EAGER_SECONDS = 0.25
_LOOK_SECONDS = 1.0


class Consumer:
    """Works on its share of the partitions for as long as its block runs. An async context manager.

    Leaving the block finishes what is under way, for a bounded time, and gives the leases back.

    Args:
        me: this process, as it is named among `members`.
        members: the processes of the service that are ready.
        make_lease: a candidate for the lease of a partition.
        make_worker: works on a partition for one lease.
    """

    def __init__(
        self,
        count: int,
        *,
        me: str,
        members: Callable[[], Collection[str]],
        wishes: Wishes,
        make_lease: Callable[[int], Lease],
        make_worker: Callable[[int, Lease], Worker],
        rng: random.Random | None = None,
    ) -> None:
        self._count, self._me, self._members = count, me, members
        self._wishes, self._make_lease, self._make_worker = wishes, make_lease, make_worker
        self._rng = rng or random.Random()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.held: set[int] = set()

    def __repr__(self) -> str:
        return f"<Consumer with partitions {sorted(self.held)} of {self._count}>"

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._live(partition), name=f"events.partition.{partition}")
            for partition in range(self._count)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        working = [task for partition, task in enumerate(self._tasks) if partition in self.held]
        if working:
            await asyncio.wait(working)
        await cancelled(self._tasks)

    async def _live(self, partition: int) -> None:
        lease = self._make_lease(partition)
        while not self._stopping.is_set():
            await self._try(partition, lease)
            if not self._stopping.is_set():
                pause = _EAGER_SECONDS if self._is_mine(partition) else _LOOK_SECONDS
                await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))

    async def _try(self, partition: int, lease: Lease) -> None:
        try:
            found = await lease.acquire()
            if isinstance(found, Held):
                await self._hold(partition, lease, found)
            elif self._is_mine(partition):
                await self._wishes.make(partition, self._me)
        except LeaseLost:
            _log.info("another process works on a partition", partition=partition)
        except Unavailable:
            return
        except Exception:  # noqa: BLE001  # a defect must not end the work on this partition for good
            _log.exception("work on a partition failed", partition=partition)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _hold(self, partition: int, lease: Lease, held: Held) -> None:
        async with lease.keeping(held):
            self.held.add(partition)
            ceding = asyncio.create_task(self._cede(partition), name="events.cede")
            try:
                ceded = asyncio.Event()
                ceding.add_done_callback(lambda _: ceded.set())
                await self._make_worker(partition, lease).run(ceded, self._stopping)
            finally:
                self.held.discard(partition)
                await cancelled([ceding])

    async def _cede(self, partition: int) -> None:
        """Return when the one whose partition it should be has asked for it, or all is to stop."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._stopping.wait()
                return
            except TimeoutError:
                if not self._is_mine(partition) and await self._wishes.of(partition) not in (None, self._me):
                    return

    def _is_mine(self, partition: int) -> bool:
        # While the registry is away, or we are on our way out, we may be missing in it.
        members = self._members()
        return self._me == partitions.owner_of(partition, members if self._me in members else [*members, self._me])
