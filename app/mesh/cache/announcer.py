"""Sends this process's invalidations to Redis: those that come together go together, none is forgotten.

While one batch is on its way, what comes waits for the next: a burst is one message, or two. What can't be sent is kept
and goes out when Redis is back; until then this process does not believe what Redis says about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from app import telemetry
from app.errors import Unavailable

_log = telemetry.log("mesh.cache")

# In one call of the script, so that no message is larger than a few hundred kilobytes.
BATCH = 1000
_MOST_UNSENT = 10_000

Send = Callable[[Sequence[str]], Awaitable[None]]


class Announcer:
    """Args:
    send: raises `Unavailable` if Redis is away.
    everything: the name that stands for all, for when too many are unsent.
    """

    def __init__(
        self, send: Send, *, everything: str, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self._send, self._everything, self._spawn = send, everything, spawn
        self._next: dict[str, None] = {}
        self._sent: asyncio.Future[bool] | None = None
        self._sender: asyncio.Task[None] | None = None
        # What could not be sent, and what of that is on its way now.
        self.unsent: set[str] = set()
        self._resent: set[str] = set()
        self.messages = 0

    def doubts(self, names: Collection[str]) -> bool:
        """Whether Redis may still hold something of `names` that this process has invalidated."""
        return any(
            kept and (self._everything in kept or not kept.isdisjoint(names)) for kept in (self.unsent, self._resent)
        )

    async def announce(self, names: Collection[str]) -> bool:
        """Send `names`; False if Redis has not got them, and will later."""
        self._next.update(dict.fromkeys(names))
        if self._sent is None:
            self._sent = asyncio.get_running_loop().create_future()
        sent = self._sent
        if self._sender is None or self._sender.done():
            self._sender = self._spawn(self._send_all())
        return await asyncio.shield(sent)

    def keep(self, names: Collection[str]) -> None:
        """Send `names` when Redis is back."""
        self.unsent.update(names)
        if len(self.unsent) > _MOST_UNSENT:
            self.unsent = {self._everything}

    def redis_is_back(self) -> None:
        """Send what could not be sent before."""
        if self.unsent and (self._sender is None or self._sender.done()):
            self._sender = self._spawn(self._send_all())

    async def _send_all(self) -> None:
        await asyncio.sleep(0)  # what comes in the same turn of the loop goes along
        while self._next or self.unsent:
            names, sent = list(self._next), self._sent
            self._next, self._sent = {}, None
            self.unsent, self._resent = set(), self.unsent
            delivered = await self._deliver([*names, *self._resent.difference(names)])
            self._resent = set()
            if sent is not None and not sent.done():
                sent.set_result(delivered)
            if not delivered and not self._next:
                return

    async def _deliver(self, names: Sequence[str]) -> bool:
        try:
            for start in range(0, len(names), BATCH):
                await self._send(names[start : start + BATCH])
                self.messages += 1
        except Unavailable as error:
            self.keep(names)
            _log.warning("invalidations could not be sent; they will be", unsent=len(self.unsent), reason=str(error))
            return False
        return True
