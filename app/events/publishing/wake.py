"""Whoever commits an event wakes the relay, in this process or in another: it need not look for work all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import redis.asyncio

from app import redis_client
from app.errors import Unavailable
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import RETENTION_MS
from app.mesh.registry.directory import cancelled

_WAKE = lines.load("app.events.publishing", "wake")
_AGAIN_SECONDS = 0.5


class Waker:
    """Carries the news of commits to the relay. An async context manager.

    What gets lost costs time, no event: the relay looks by itself, too.

    Args:
        watch: a client for blocking reads of `block_seconds`; the waker's from here on.
        wake_relay: tells the relay of this process.
        leading: whether that one is at work.
    """

    def __init__(
        self,
        key: str,
        *,
        line: Line,
        watch: redis.asyncio.Redis,
        block_seconds: float,
        wake_relay: Callable[[], None],
        leading: Callable[[], bool],
    ) -> None:
        self._key, self._line, self._watch = key, line, watch
        self._block_ms = max(1, int(block_seconds * 1000))
        self._wake_relay, self._leading = wake_relay, leading
        self._telling: asyncio.Task[None] | None = None
        self._again = False
        self._hearing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._hearing = asyncio.create_task(self._hear(), name="events.wake")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancelled([task for task in (self._hearing, self._telling) if task is not None])
        await self._watch.aclose()

    def wake(self) -> None:
        """Something was committed here."""
        if self._leading():
            self._wake_relay()
            return
        self._again = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name="events.wake.tell")

    async def _tell(self) -> None:
        while self._again:  # what is committed while one message is under way is told with one more
            self._again = False
            try:
                await self._line.run(_WAKE, (self._key,), (RETENTION_MS,))
            except Unavailable:
                return

    async def _hear(self) -> None:
        position: Any = "0-0"
        while True:
            try:
                reply: Any = await self._watch.xread({self._key: position}, count=1, block=self._block_ms)
                if reply:
                    position = reply[0][1][-1][0]
                    self._wake_relay()
            except redis_client.FAILURES:
                position = "0-0"
                self._wake_relay()
                await asyncio.sleep(_AGAIN_SECONDS)
