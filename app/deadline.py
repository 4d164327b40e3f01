"""Bounds the time of blocks, for thousands of them at once: `asyncio.timeout` without a timer of the loop for each.

A timer that is made and cancelled for every call costs more than all the rest that the mesh adds to it. Here what
ends in the same few milliseconds shares one bucket, and only the earliest bucket has a timer.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self
from weakref import WeakKeyDictionary

# A block may end this much late, never early; what a hop keeps back of its deadline is as long.
RESOLUTION_SECONDS = 0.005
_PER_SECOND = 1 / RESOLUTION_SECONDS


class Timed(Protocol):
    """Something that is to happen at a time, unless it is taken out of its bucket before."""

    def fire(self) -> None: ...


Reprieve = Callable[[], float]


class Deadline:
    """One bounded block: cancelled when its time is over, and that cancellation, no other, becomes TimeoutError.

    The protocol is that of CPython's ``asyncio.timeouts.Timeout``; entering and leaving need no await.
    """

    __slots__ = ("_bucket", "_cancelling", "_reprieve", "_seconds", "_task", "_wheel", "fired")

    _bucket: set[Timed]
    _task: asyncio.Task[object]

    def __init__(self, wheel: Deadlines, seconds: float, reprieve: Reprieve | None) -> None:
        self._wheel, self._seconds, self._reprieve, self.fired = wheel, seconds, reprieve, False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("A deadline needs a task to cancel")
        self._task, self._cancelling = task, task.cancelling()
        self._bucket = self._wheel.bucket(task.get_loop(), self._seconds)
        self._bucket.add(self)
        return self

    def lift(self) -> None:
        """From here on the block may take as long as it likes."""
        self._bucket.discard(self)

    def prolong(self, seconds: float) -> None:
        """From here on the block has so many seconds."""
        if not self.fired:
            self._bucket.discard(self)
            self._bucket = self._wheel.bucket(self._task.get_loop(), seconds)
            self._bucket.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bucket.discard(self)
        # A second cancellation, from outside, must win: only ours may be hidden from the task.
        if self.fired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def fire(self) -> None:
        more = self._reprieve() if self._reprieve is not None else 0.0
        if more > 0:
            self.prolong(more)
            return
        self.fired = True
        self._task.cancel()


class Deadlines:
    """What is timed on one event loop, by the slot of time in which it ends."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[Timed]] = {}
        self._slots: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def __repr__(self) -> str:
        return f"<Deadlines {sum(map(len, self._buckets.values()))} running>"

    def within(self, seconds: float, reprieve: Reprieve | None = None) -> Deadline:
        """A context manager that bounds its block.

        Args:
            reprieve: asked when the time is over: how many seconds more; none end the block.

        Raises:
            TimeoutError: at the block's end, if it took too long.
        """
        return Deadline(self, seconds, reprieve)

    def bucket(self, loop: asyncio.AbstractEventLoop, seconds: float) -> set[Timed]:
        """Where something belongs that is to fire in `seconds`; discarding it from there is enough to stop it."""
        slot = int((loop.time() + seconds) * _PER_SECOND) + 1
        bucket = self._buckets.get(slot)
        if bucket is None:
            bucket = self._buckets[slot] = set()
            heapq.heappush(self._slots, slot)
            self._arm(loop)
        return bucket

    def close(self) -> None:
        """Stop the timer; blocks that are still running are no longer bounded."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        earliest = self._slots[0]
        if self._timer is not None and self._timer_slot <= earliest:
            return
        self.close()
        self._timer_slot = earliest
        self._timer = loop.call_at(earliest * RESOLUTION_SECONDS, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time() * _PER_SECOND
        while self._slots and self._slots[0] <= now:
            # A copy: whoever is reprieved takes itself out of its bucket.
            for timed in tuple(self._buckets.pop(heapq.heappop(self._slots))):
                timed.fire()
        if self._slots:
            self._arm(loop)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Deadlines] = WeakKeyDictionary()


def of(loop: asyncio.AbstractEventLoop) -> Deadlines:
    """The deadlines of `loop`; for whoever has none of its own."""
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Deadlines()
    return found
