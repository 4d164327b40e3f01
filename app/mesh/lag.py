"""How late the event loop wakes up: measured on the loop, read from any thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_INTERVAL_SECONDS = 0.25


class LoopLag:
    """Use as a context manager on a running loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock()
        self._last = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._schedule()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()

    @property
    def seconds(self) -> float:
        """The last measured lag; if the loop stands still right now, for how long it has been overdue."""
        return max(self._last, self._clock() - self._due, 0.0)

    def _schedule(self) -> None:
        self._due = self._clock() + _INTERVAL_SECONDS
        self._handle = asyncio.get_running_loop().call_later(_INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        self._last = max(0.0, self._clock() - self._due)
        self._schedule()
