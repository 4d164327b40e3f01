"""Stopping: told by SIGINT, SIGTERM or SIGHUP; once means in order, twice means at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from app.settings import Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A process tells its callers, finishes what is in flight and ends; this much after the time for both it is killed.
KILL_AFTER_SECONDS = 10.0


def longest_seconds(settings: Settings) -> float:
    """How long one process may take to end by itself."""
    return settings.serving.drain_notice_seconds + settings.drain_seconds + KILL_AFTER_SECONDS


class Stop:
    """What the signals have said so far; made on the event loop."""

    def __init__(self) -> None:
        self.told, self.hurried = asyncio.Event(), asyncio.Event()

    def __repr__(self) -> str:
        return f"<Stop, {'hurried' if self.hurried.is_set() else 'told' if self.told.is_set() else 'not told'}>"

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen for the length of the block."""
        loop = asyncio.get_running_loop()
        for sign in SIGNALS:
            loop.add_signal_handler(sign, self._on_signal)
        try:
            yield
        finally:
            for sign in SIGNALS:
                loop.remove_signal_handler(sign)

    def _on_signal(self) -> None:
        if self.told.is_set():
            self.hurried.set()
        self.told.set()

    async def lets_finish(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work, or drop it when we are told to stop; whether it was done."""
        task, told = asyncio.create_task(work), asyncio.create_task(self.told.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            task.cancel()
            told.cancel()
            await asyncio.gather(task, told, return_exceptions=True)
