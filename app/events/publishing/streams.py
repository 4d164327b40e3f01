"""What the relay says to Redis: the streams of one service, one for each partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.events import position
from app.events.position import END, START, Position
from app.events.publishing import trimming
from app.events.publishing.ledger import Row
from app.events.publishing.trimming import Trim
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import EVENTS_MS, Keys

_PUBLISH = lines.load("app.events.publishing", "publish")
_EXTENT = lines.load("app.events.publishing", "extent")
_TRIM = lines.load("app.events.publishing", "trim")


@dataclass(frozen=True, slots=True)
class End:
    """Where a stream ends, and whether that is where it was believed to end."""

    position: Position
    expected: bool


class Streams:
    """The streams of `service`. All methods raise `Unavailable` if Redis is away."""

    def __init__(self, line: Line, keys: Keys, service: str, partitions: int) -> None:
        self._line, self.service, self.partitions = line, service, partitions
        self._keys = [keys.events(service, partition) for partition in range(partitions)]

    async def append(self, ends: Mapping[int, Position], rows: Mapping[int, Sequence[Row]]) -> dict[int, End]:
        """Add rows to the streams that end where `ends` says; the others are left alone. Returns where each ends."""
        args: list[str | int] = [EVENTS_MS]
        for partition, end in ends.items():
            added = rows.get(partition, ())
            args += [str(end), len(added)]
            for row in added:
                args += [str(row.position), row.content]
        reply: list[list[Any]] = await self._line.run(_PUBLISH, [self._keys[p] for p in ends], args)
        return {p: End(position.parse(last), bool(ok)) for p, (ok, last) in zip(ends, reply, strict=True)}

    async def extents(self) -> list[trimming.Extent]:
        """How long each stream is, and how far its groups are."""
        reply: list[list[Any]] = await self._line.run(_EXTENT, self._keys, [str(END)])
        return [
            trimming.Extent(int(length), {group.decode(): position.parse(at) for group, at in groups})
            for length, groups in reply
        ]

    async def trim(self, partition: int, trim: Trim) -> int:
        """Cut the beginning off; returns how many entries went."""
        strategy, limit = ("MAXLEN", trim.length) if trim.before == START else ("MINID", trim.before)
        return int(await self._line.run(_TRIM, [self._keys[partition]], [strategy, str(limit)]))
