"""One flight per key: who asks for what somebody has already asked for waits for that answer.

The work is a task of its own, so that no waiter's cancellation harms the others; the last one to go takes it along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    __slots__ = ("ends_at", "task", "waiters")

    def __init__(self, task: asyncio.Task[V], ends_at: float) -> None:
        self.task, self.ends_at = task, ends_at
        self.waiters = 0


class Flights(Generic[K, V]):
    """What is under way in one event loop, by key."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}

    def __repr__(self) -> str:
        waiters = sum(flight.waiters for flight in self._flights.values())
        return f"<Flights {len(self._flights)} under way, {waiters} waiting>"

    def __len__(self) -> int:
        return len(self._flights)

    def is_under_way(self, key: K, until: float) -> bool:
        """Whether `join` would wait for somebody else's work."""
        flight = self._flights.get(key)
        return flight is not None and flight.ends_at >= until

    async def join(self, key: K, work: Callable[[], Coroutine[Any, Any, V]], *, until: float, ends_at: float) -> V:
        """The result of the flight under way for `key`, or of `work`; raises what that raises.

        Args:
            until: how long the caller would wait: a flight that may end before is not for it, and is succeeded.
            ends_at: when `work` gives up by itself; on the same clock.
        """
        flight = self._flights.get(key)
        if flight is None or flight.ends_at < until:
            flight = self._flights[key] = _Flight(asyncio.create_task(work(), name="mesh.flight"), ends_at)
            flight.task.add_done_callback(_retrieve)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                self._land(key, flight)

    def _land(self, key: K, flight: _Flight[V]) -> None:
        """The last waiter has gone: done or not, nobody wants it any more."""
        flight.task.cancel()
        if self._flights.get(key) is flight:
            del self._flights[key]


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
