"""Work of one key in order, of different keys side by side.

put(key, item) ──► the key's lane: item, item, item ──► work(item), one after the other
                   another key's:  item             ──► work(item), meanwhile
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from app.mesh.registry.directory import cancelled

T = TypeVar("T")


class Lanes(Generic[T]):
    """Lanes come with their first item and go with their last.

    Args:
        work: does one item; must not raise but for cancellation.
        most: `room` waits while so many items are open.
    """

    def __init__(self, work: Callable[[T], Awaitable[None]], *, most: int) -> None:
        self._work, self._most = work, most
        self._lanes: dict[str, deque[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Lanes {len(self._lanes)}, {self._open} items>"

    def __len__(self) -> int:
        return self._open

    def put(self, key: str, item: T) -> None:
        self._open += 1
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(item)
            return
        self._lanes[key] = deque([item])
        task = asyncio.create_task(self._run(key), name="events.lane")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def room(self) -> None:
        """Return when fewer than `most` items are open."""
        await self._until(lambda: self._open < self._most)

    async def empty(self) -> None:
        """Return when no item is open."""
        await self._until(lambda: not self._open)

    async def aclose(self) -> None:
        """Cancel what is under way."""
        await cancelled(list(self._tasks))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _run(self, key: str) -> None:
        lane = self._lanes[key]
        while lane:
            await self._work(lane.popleft())
            self._open -= 1
            self._changed.set()
        # No await since the lane was seen to be empty: nobody has put anything into it.
        del self._lanes[key]
