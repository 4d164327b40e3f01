"""One load per key at a time in this process: who comes while it is under way waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

from app.errors import DeadlineExceeded
from app.mesh.cache.entry import Entry
from app.mesh.cache.fence import Fence

Outcome = Entry | None
Load = Callable[[int], Coroutine[Any, Any, Outcome]]


class Flight:
    """A load under way; its outcome is an entry, an error, or None: given up, ask again.

    Attributes:
        since: the fence's moment at which it began.
        names: what makes it old if it is invalidated.
    """

    __slots__ = ("_outcome", "names", "since")

    def __init__(self, names: Collection[str], since: int) -> None:
        self.names, self.since = names, since
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outcome:
        """Wait for it; whoever is cancelled here takes nobody along."""
        return await asyncio.shield(self._outcome)

    def end(self, entry: Outcome) -> None:
        if not self._outcome.done():
            self._outcome.set_result(entry)

    def fail(self, error: BaseException) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)
            self._outcome.exception()  # nobody may be waiting any more, and that is no defect


class Flights:
    """All loads of one process.

    A load that was launched runs in a task of its own, and goes on when the last of its waiters has left: it is one per
    key at most, and its value is what the next caller would have to load anew. If it were cancelled, callers whose time
    is shorter than the load would start it over and over, and the cache would never fill. A load that is led runs in
    its caller's own task (a view must: it belongs to its request); if that is cancelled, a waiter takes over.
    """

    def __init__(self, fence: Fence, *, spawn: Callable[[Coroutine[Any, Any, Outcome]], asyncio.Task[Outcome]]) -> None:
        self._fence, self._spawn = fence, spawn
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def under_way(self, key: str) -> Flight | None:
        """The flight to join, if there is one that nothing has made old."""
        flight = self._flights.get(key)
        if flight is None or self._fence.broken(flight.names, flight.since):
            return None
        return flight

    def launch(self, key: str, names: Collection[str], load: Load) -> Flight:
        """Start `load` in the background."""
        since = self._fence.open()
        flight = self._flights[key] = Flight(names, since)
        self._spawn(load(since)).add_done_callback(partial(self._landed, key, flight))
        return flight

    async def lead(self, key: str, names: Collection[str], load: Load) -> Outcome:
        """Run `load` here, with others waiting for it."""
        with self._fence.opened() as since:
            flight = self._flights[key] = Flight(names, since)
            try:
                entry = await load(since)
                flight.end(entry)
                return entry
            except (asyncio.CancelledError, DeadlineExceeded):
                flight.end(None)  # our time is over, not theirs
                raise
            except BaseException as error:
                flight.fail(error)
                raise
            finally:
                self._land(key, flight)

    def _landed(self, key: str, flight: Flight, task: asyncio.Task[Outcome]) -> None:
        self._land(key, flight)
        self._fence.close()
        if task.cancelled():
            flight.end(None)
        elif (error := task.exception()) is not None:
            flight.fail(error)
        else:
            flight.end(task.result())

    def _land(self, key: str, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
