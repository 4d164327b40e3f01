"""What is published, as it comes: all partitions side by side, in the order in which they were sent. It moves nobody's place."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio

from app import redis_client
from app.errors import Unavailable
from app.events import envelope as envelopes
from app.events.envelope import CloudEvent, Unreadable
from app.events.position import START, Position, parse
from app.mesh.keys import EventStream
from app.mesh.registry.directory import cancelled

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream; `event` is None if it is none."""

    stream: EventStream
    position: Position
    event: CloudEvent | None = field(repr=False)
    content: bytes = field(repr=False)


class Tail:
    """Reads on from where it is. Its methods raise `Unavailable` if Redis is away; then it goes on at the same place.

    Args:
        client: for blocking reads of `block_seconds`; stays the caller's.
        streams: those that are not there yet may come.
    """

    def __init__(self, client: redis.asyncio.Redis, streams: Iterable[EventStream], *, block_seconds: float) -> None:
        self._client, self._block_ms = client, max(1, int(block_seconds * 1000))
        self._streams = {stream.key: stream for stream in streams}
        self._after = dict.fromkeys(self._streams, START)

    def __repr__(self) -> str:
        return f"<Tail of {len(self._streams)} streams>"

    async def skip(self) -> None:
        """Leave out what is there by now."""
        try:
            for key in self._streams:
                last = await self._client.xrevrange(key, count=1)
                if last:
                    self._after[key] = parse(cast("bytes", last[0][0]))
        except redis_client.FAILURES as error:
            raise _away(error) from error

    async def read(self) -> list[Entry]:
        """What comes next, in order; waits for it, and returns nothing if nothing comes for a while."""
        found = [self._entries(key, entries) for key, entries in await self._come()]
        # What stands in one stream behind all that was read of another comes later: there may be something between.
        horizon = min((entries[-1].position for entries in found if len(entries) == _AT_ONCE), default=None)
        several = [e for entries in found for e in entries if horizon is None or e.position <= horizon]
        ready = sorted(several, key=lambda entry: entry.position)
        self._after |= {entry.stream.key: entry.position for entry in ready}
        return ready

    async def _come(self) -> Any:
        places: Any = {key: str(position) for key, position in self._after.items()}
        # In a task of its own: redis-py may lose its caller's cancellation, see app.mesh.coordination.line.
        reading: asyncio.Task[Any] = asyncio.ensure_future(
            self._client.xread(places, count=_AT_ONCE, block=self._block_ms)
        )
        try:
            await asyncio.wait((reading,))
            return reading.result()
        except redis_client.FAILURES as error:
            raise _away(error) from error
        finally:
            await cancelled([reading])

    def _entries(self, key: bytes, entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
        stream = self._streams[key.decode()]
        # An entry whose fields are None was removed meanwhile.
        return [_entry(stream, parse(entry), (fields or {}).get(b"event", b"")) for entry, fields in entries]


def _entry(stream: EventStream, position: Position, content: bytes) -> Entry:
    try:
        return Entry(stream, position, envelopes.parse(content), content)
    except Unreadable:
        return Entry(stream, position, None, content)


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"Redis is away ({type(error).__name__}): events", retry_after=1.0)
