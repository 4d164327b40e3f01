"""Hears what other processes say: reads a log of theirs with ``XREAD BLOCK`` on a connection of its own.

    LOST ── last entry of the log read ──► WATCHING ── an entry ──► told to the listener
      ▲                                      │
      └── no answer, cut off, or a gap ──────┘

Every entry names the one before it, and a block that ends without one looks whether the last entry is still ours: a log
that was flushed, trimmed past us or taken from a stale replica shows as a gap, after which the listener must not rely on what
it has heard. A connection that dies without a word is found out after one block at the latest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Protocol

import orjson
import redis.asyncio

from app import redis_client, telemetry
from app.mesh.balancing.backoff import out_seconds
from app.mesh.registry.directory import cancelled

_log = telemetry.log("mesh.watch")

_BATCH = 100
_AGAIN_SECONDS = (0.05, 2.0)
_AWAY = redis_client.FAILURES


class Listener(Protocol):
    """Who wants to know; called on the loop."""

    def heard(self, names: Sequence[str]) -> None:
        """Another process has said `names`."""

    def watching(self, *, on: bool) -> None:
        """From here on everything is heard; or nothing is."""


class Watch:
    """Starts with the first `start`.

    Args:
        client: of its own, with a timeout above `block_seconds` and no repeats; closed by `aclose`.
        origin: whose entries are our own, and no news.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        log_key: str,
        *,
        origin: str,
        listener: Listener,
        block_seconds: float,
        rng: random.Random | None = None,
    ) -> None:
        self._client, self._key, self._origin, self._listener = client, log_key, origin.encode(), listener
        self._block_ms = max(1, int(block_seconds * 1000))
        self._rng = rng or random.Random()
        self._position = b""
        self._on = False
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Watch {'on' if self._on else 'lost'}, at {self._position.decode() or 'nothing'}>"

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._live(None), name="mesh.watch")

    def doubt(self) -> None:
        """Redis does not answer others: begin anew, rather than believe in a connection that says nothing."""
        if self._on:
            self._turn(on=False)
            self._task = asyncio.create_task(self._live(self._task), name="mesh.watch")

    async def aclose(self) -> None:
        if self._task is not None:
            await cancelled([self._task])
        await self._client.aclose()

    async def _live(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await cancelled([before])
        failures = 0
        while True:
            try:
                self._position = await self._last()
                failures = 0
                self._turn(on=True)
                while await self._step():
                    pass
                _log.warning("log has a gap", log=self._key)
            except _AWAY as error:
                if self._on or not failures:
                    _log.warning("log is not heard", log=self._key, reason=type(error).__name__)
                failures += 1
            except Exception:  # noqa: BLE001  # a defect in one entry must not end the watch for ever
                _log.exception("watch failed", log=self._key)
                failures += 1
            self._turn(on=False)
            if failures:
                await asyncio.sleep(out_seconds(*_AGAIN_SECONDS, failures - 1, self._rng))

    async def _last(self) -> bytes:
        entries: Any = await self._client.xrevrange(self._key, count=1)
        return entries[0][0] if entries else b"0-0"

    async def _step(self) -> bool:
        """Wait for entries and tell of them; False if some are missing."""
        reply: Any = await self._client.xread({self._key: self._position}, count=_BATCH, block=self._block_ms)
        if not reply:
            return await self._last() == self._position
        for entry_id, fields in _entries(reply):
            if fields.get(b"prev") != self._position:
                return False
            self._position = entry_id
            if fields.get(b"origin") != self._origin:
                self._listener.heard([str(name) for name in orjson.loads(fields[b"names"])])
        return True

    def _turn(self, *, on: bool) -> None:
        if on != self._on:
            self._on = on
            self._listener.watching(on=on)


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """XREAD's reply for one stream: a list of pairs in RESP2, a mapping to lists of lists in RESP3."""
    if isinstance(reply, dict):
        [batches] = reply.values()
        return [entry for batch in batches for entry in batch]
    return list(reply[0][1])
