"""How far behind everybody is. It adds up and touches nothing; `surveyor` asks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.events.position import Position


@dataclass(frozen=True, slots=True)
class Count:
    """So many, or more if not `exact`: it is not counted for ever."""

    number: int
    exact: bool = True

    def __str__(self) -> str:
        return f"{self.number}{'' if self.exact else '+'}"

    def __add__(self, other: Count) -> Count:
        return Count(self.number + other.number, self.exact and other.exact)


@dataclass(frozen=True, slots=True)
class Reading:
    """One group on one stream, as Redis has it.

    Args:
        service: whose events; None: dead letters that the group is to handle again.
        waiting: entries that it was not given.
        open: entries that it was given and has not finished.
        oldest: the first of both; None if there are none.
        owner: who works on the partition; None if nobody does.
    """

    service: str | None
    partition: int
    group: str
    waiting: Count
    open: int
    oldest: Position | None
    owner: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """One group and all of one service's events; as `Reading`, over all partitions."""

    service: str | None
    group: str
    waiting: Count
    open: int
    oldest: Position | None
    owners: Mapping[int, str | None]

    @property
    def behind(self) -> int:
        """What is still to be done, at least."""
        return self.waiting.number + self.open

    def oldest_seconds(self, now_ms: int) -> float | None:
        """How long ago the first of what is to be done was sent; None if nothing is."""
        return None if self.oldest is None else max(0, now_ms - self.oldest.batch) / 1000

    def describe(self, now_ms: int) -> dict[str, Any]:
        """Plain values; `exact` is false where there are more than `waiting`."""
        return {
            "service": self.service,
            "group": self.group,
            "waiting": self.waiting.number,
            "exact": self.waiting.exact,
            "open": self.open,
            "oldest_seconds": self.oldest_seconds(now_ms),
            "owners": {str(partition): owner for partition, owner in self.owners.items()},
        }


@dataclass(frozen=True, slots=True)
class Survey:
    """Everybody at one instant, more or less.

    Args:
        standings: by service and group; what is to be handled again comes last.
        dead: how many dead letters each group has, where there are any.
    """

    standings: tuple[Standing, ...]
    dead: Mapping[str, int]


def add_up(readings: Iterable[Reading]) -> tuple[Standing, ...]:
    """One standing for each service and group."""
    spread: dict[tuple[str | None, str], list[Reading]] = defaultdict(list)
    for reading in readings:
        spread[reading.service, reading.group].append(reading)
    order = sorted(spread, key=lambda of: (of[0] is None, of[0] or "", of[1]))
    return tuple(_standing(service, group, spread[service, group]) for service, group in order)


def _standing(service: str | None, group: str, readings: list[Reading]) -> Standing:
    return Standing(
        service,
        group,
        waiting=sum((reading.waiting for reading in readings), Count(0)),
        open=sum(reading.open for reading in readings),
        oldest=min((reading.oldest for reading in readings if reading.oldest is not None), default=None),
        owners={reading.partition: reading.owner for reading in sorted(readings, key=lambda r: r.partition)},
    )
