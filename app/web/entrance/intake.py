"""A request's body as the client gets it to us: how slow it may be, and who pays for the waiting.

Time counts only while we wait for the client; what it takes us to ask for more is our own. The rate is an average, so
that a client on a bad line may pause for a while, and one that drips for ever may not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app import deadline
from app.errors import RequestTimeout
from app.web.entrance.shedding import Slot


@dataclass(frozen=True, slots=True)
class Pace:
    """The slowest that a body may come.

    Args:
        grace_seconds: for so long it may make us wait in all, and
        bytes_per_second: for as long again as what has come takes at this rate.
    """

    grace_seconds: float = 5.0
    bytes_per_second: int = 500

    def patience_seconds(self, received_bytes: int) -> float:
        return self.grace_seconds + received_bytes / self.bytes_per_second


class Intake:
    """ASGI's receive of a request with a body: it lends the slot back while it waits, and does not wait for ever.

    Raises:
        RequestTimeout: the body is too slow; then, and whenever it is asked again.
    """

    __slots__ = ("_complete", "_pace", "_receive", "_received_bytes", "_slot", "_waited_seconds")

    def __init__(self, receive: Callable[[], Any], slot: Slot, pace: Pace) -> None:
        self._receive, self._slot, self._pace = receive, slot, pace
        self._received_bytes, self._waited_seconds, self._complete = 0, 0.0, False

    async def __call__(self) -> Any:
        if self._complete:
            return await self._receive()  # for the news that the client has gone
        left = self._pace.patience_seconds(self._received_bytes) - self._waited_seconds
        if left <= 0:
            raise RequestTimeout("The body came too slowly")
        message = await self._wait(left)
        self._received_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    async def _wait(self, seconds: float) -> Any:
        bound = deadline.of(asyncio.get_running_loop()).within(seconds)
        started = time.monotonic()
        self._slot.lend(started)
        try:
            with bound:
                return await self._receive()
        except TimeoutError as error:
            raise RequestTimeout("The body came too slowly") from error
        finally:
            ended = time.monotonic()
            self._slot.resume(ended)
            self._waited_seconds += ended - started
