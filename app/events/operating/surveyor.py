"""What an operator asks Redis about events: which streams there are, how far their groups are, and that one be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from app import redis_client
from app.errors import Conflict, NotFound, Unavailable
from app.events import position as positions
from app.events.operating.survey import Count, Reading, Survey, add_up
from app.events.position import Position
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import EventStream, Keys

_STANDING, _COUNT, _FORGET = (lines.load("app.events.operating", name) for name in ("standing", "count", "forget"))

# Of each group and stream, unless its length says how many there are.
COUNT_UP_TO = 100_000
_COUNT_AT_ONCE = 1_000
_STREAMS_AT_ONCE = 64
_SCAN_AT_ONCE = 1_000

# By group and partition.
_Owners = Mapping[tuple[str, int], str]


@dataclass(frozen=True, slots=True)
class _Group:
    """What `standing.lua` says of a group; `open` and `new` are the first id of either."""

    name: str
    given: str
    pending: int
    open: str
    new: str

    @property
    def oldest(self) -> Position | None:
        return min((positions.parse(entry) for entry in (self.open, self.new) if entry), default=None)


@dataclass(frozen=True, slots=True)
class _State:
    stream: EventStream
    length: int
    first: str
    groups: Sequence[_Group]


class Surveyor:
    """Asks, one question after the other. Every method raises `Unavailable` if Redis is away.

    Args:
        client: for what no script does; stays the caller's.
        count_up_to: of each group and stream.
    """

    def __init__(self, line: Line, client: redis.asyncio.Redis, keys: Keys, *, count_up_to: int = COUNT_UP_TO) -> None:
        self._line, self._client, self._keys, self._count_up_to = line, client, keys, count_up_to

    async def find(self) -> Sequence[EventStream]:
        """All streams of events, also those that nobody knows any more; by key. It goes through all keys of Redis."""
        pattern = f"{self._keys.prefix}*"
        try:
            found = [
                self._keys.event_stream(key.decode("utf-8", "replace"))
                async for key in self._client.scan_iter(match=pattern, count=_SCAN_AT_ONCE, _type="stream")
            ]
        except redis_client.FAILURES as error:
            raise _away(error) from error
        return sorted({stream for stream in found if stream is not None}, key=lambda s: (s.kind, s.name, s.partition))

    async def survey(self) -> Survey:
        """Everybody."""
        streams = await self.find()
        readings = await self.read([stream for stream in streams if stream.kind != "dead"])
        dead = {stream.name: await self.length(stream.key) for stream in streams if stream.kind == "dead"}
        return Survey(add_up(readings), {group: count for group, count in dead.items() if count})

    async def read(self, streams: Sequence[EventStream]) -> list[Reading]:
        """How far every group of `streams` is, by stream."""
        states = [state for some in _parts(streams) for state in await self._states(some)]
        owners = await self._owners(states)
        return [await self._reading(state, group, owners) for state in states for group in state.groups]

    async def length(self, key: str) -> int:
        try:
            return int(await self._client.xlen(key))
        except redis_client.FAILURES as error:
            raise _away(error) from error

    async def forget(self, group: str) -> int:
        """Remove `group` from all streams, which need not be kept for it any more; returns from how many.

        Raises:
            NotFound: it is on none.
            Conflict: somebody works for it.
        """
        streams = [s for s in await self.find() if s.kind == "events" or (s.kind == "again" and s.name == group)]
        locks = [self._keys.partition_lock(group, partition) for partition in sorted({s.partition for s in streams})]
        removed = int(await self._line.run(_FORGET, [*locks, *(s.key for s in streams)], (group, len(locks))))
        if removed < 0:
            raise Conflict(f"A process of {group} handles events now; stop the service first")
        if not removed:
            raise NotFound(f"No stream has a group {group!r}")
        return removed

    async def _states(self, streams: Sequence[EventStream]) -> list[_State]:
        reply: list[Any] = await self._line.run(_STANDING, [stream.key for stream in streams])
        return [
            _State(stream, int(length), first.decode(), [_group(*said) for said in groups])
            for stream, (length, first, groups) in zip(streams, reply, strict=True)
        ]

    async def _owners(self, states: Iterable[_State]) -> _Owners:
        """Who works on which partition of what a group hears."""
        of = sorted({(group.name, state.stream.partition) for state in states for group in state.groups})
        if not of:
            return {}
        try:
            values: Sequence[Any] = await self._client.mget([self._keys.partition_lock(*each) for each in of])
        except redis_client.FAILURES as error:
            raise _away(error) from error
        return {
            each: value.decode("utf-8", "replace").partition(" ")[0]
            for each, value in zip(of, values, strict=True)
            if value is not None
        }

    async def _reading(self, state: _State, group: _Group, owners: _Owners) -> Reading:
        stream = state.stream
        owner = owners.get((group.name, stream.partition))
        service = stream.name if stream.kind == "events" else None
        waiting = await self._waiting(state, group)
        return Reading(service, stream.partition, group.name, waiting, group.pending, group.oldest, owner)

    async def _waiting(self, state: _State, group: _Group) -> Count:
        if not group.new:
            return Count(0)
        if group.new == state.first:
            return Count(state.length)
        number, after = 0, group.given
        while number <= self._count_up_to:
            wanted = min(_COUNT_AT_ONCE, self._count_up_to + 1 - number)
            found, last = await self._line.run(_COUNT, (state.stream.key,), (after, wanted))
            number, after = number + found, last.decode()
            if found < wanted:
                return Count(number)
        return Count(self._count_up_to, exact=False)


def _group(name: bytes, given: bytes, pending: int, open_: bytes, new: bytes) -> _Group:
    return _Group(name.decode("utf-8", "replace"), given.decode(), pending, open_.decode(), new.decode())


def _parts(streams: Sequence[EventStream]) -> Iterable[Sequence[EventStream]]:
    return (streams[start : start + _STREAMS_AT_ONCE] for start in range(0, len(streams), _STREAMS_AT_ONCE))


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"Redis is away ({type(error).__name__}): events", retry_after=1.0)
