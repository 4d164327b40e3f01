"""What a consumer says to Redis: a service's group on one partition of all the streams that it hears."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from app import redis_client
from app.errors import LeaseLost, Unavailable
from app.events.position import START, Position, parse
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import DEAD_MS, EVENTS_MS, Keys

_JOIN, _TAKE, _INHERIT, _ACK, _BURY = (
    lines.load("app.events.handling", name) for name in ("join", "take", "inherit", "ack", "bury")
)

_INHERIT_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry as it was handed to us.

    Args:
        stream: its key in Redis.
        entry: its id there.
        content: a CloudEvent in JSON; empty if it was trimmed away meanwhile.
        times: how often it was handed out before.
    """

    stream: str
    entry: str
    content: bytes = field(repr=False)
    times: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What was new, and where the streams end."""

    deliveries: Sequence[Delivery]
    ends: Mapping[str, str]


class Group:
    """The group of `service` on partition `partition`.

    Methods raise `Unavailable` if Redis is away.

    Args:
        watch: a client for blocking reads of `block_seconds`; stays the caller's.
        lock: the key under which our lease of the partition stands, while it is ours.
        owner: what stands there then.
        consumer: the name under which this process appears in the group.
    """

    def __init__(
        self,
        service: str,
        partition: int,
        heard: Collection[str],
        *,
        line: Line,
        watch: redis.asyncio.Redis,
        keys: Keys,
        lock: str,
        owner: str,
        consumer: str,
        block_seconds: float,
        max_dead: int,
    ) -> None:
        self.name, self.partition = service, partition
        self._again = keys.again(service, partition)
        self.streams = (*(keys.events(other, partition) for other in heard), self._again)
        self._line, self._watch, self._dead = line, watch, keys.dead(service)
        self._lock, self._owner, self._consumer = lock, owner, consumer
        self._block_ms, self._max_dead = max(1, int(block_seconds * 1000)), max_dead

    def __repr__(self) -> str:
        return f"<Group {self.name}, partition {self.partition}>"

    async def join(self) -> int:
        """Make the group where it is missing, so that it misses nothing; returns on how many streams it was."""
        return int(await self._line.run(_JOIN, self.streams, (self.name, EVENTS_MS)))

    async def inherit(self, stream: str, after: str) -> Sequence[Delivery] | None:
        """Take over what was handed out and not finished, behind `after`; None if the group is missing.

        Raises:
            LeaseLost: the partition is no longer ours.
        """
        args = (self._owner, self.name, self._consumer, after, _INHERIT_AT_ONCE)
        code, *rest = await self._line.run(_INHERIT, (self._lock, stream), args)
        if not self._is_there(code):
            return None
        return [Delivery(stream, entry.decode(), _content(fields), times) for entry, fields, times in rest[0]]

    async def take(self, count: int) -> Taken | None:
        """Take up to `count` new entries of each stream; None if the group or a stream is missing.

        Raises:
            LeaseLost: the partition is no longer ours.
        """
        args = (self._owner, self.name, self._consumer, count)
        code, *rest = await self._line.run(_TAKE, (self._lock, *self.streams), args)
        if not self._is_there(code):
            return None
        taken, ends = rest
        found = [
            Delivery(stream, entry.decode(), _content(fields))
            for stream, entries in zip(self.streams, taken, strict=True)
            for entry, fields in entries
        ]
        return Taken(found, {s: end.decode() for s, end in zip(self.streams, ends, strict=True)})

    async def wait(self, ends: Mapping[str, str]) -> None:
        """Return when a stream goes on behind its end, or after a while."""
        try:
            await self._watch.xread(dict(ends), count=1, block=self._block_ms)  # type: ignore[arg-type]
        except redis_client.FAILURES as error:
            raise Unavailable(f"Redis is away ({type(error).__name__}): events", retry_after=1.0) from error

    async def ack(self, stream: str, entries: Sequence[str]) -> None:
        """These are done."""
        await self._line.run(_ACK, (stream,), (self.name, int(stream == self._again), *entries))

    async def bury(self, delivery: Delivery, letter: Mapping[str, str | bytes]) -> None:
        """Move an event to the dead letters."""
        fields = [part for pair in letter.items() for part in pair]
        keys = (self._dead, delivery.stream)
        await self._line.run(_BURY, keys, (self.name, delivery.entry, self._max_dead, DEAD_MS, *fields))

    def _is_there(self, code: Any) -> bool:
        if code == 0:
            raise LeaseLost(f"Partition {self.partition} of {self.name} was lost", retry_after=1.0)
        return bool(code == 1)


def in_order(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """As their services published them; between services by time."""
    return sorted(deliveries, key=_position)


def _position(delivery: Delivery) -> Position:
    return parse(delivery.entry)


def first() -> str:
    """Before every entry."""
    return str(START)


def _content(fields: Sequence[bytes]) -> bytes:
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    # What somebody else has written there is no event, and yet must not be taken for one that was trimmed away.
    return named.get(b"event") or b" ".join(fields)
