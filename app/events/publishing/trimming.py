"""How much of a stream may go. It decides and touches nothing.

What every group has handled goes when it is old enough. What somebody has not handled stays, until the stream is so long that
Redis itself is in danger; then the oldest go, never silently, and the outbox still has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.events.position import START, Position


@dataclass(frozen=True, slots=True)
class Extent:
    """One stream.

    Args:
        length: how many entries it has.
        groups: name → the first position that it has not finished, or the last that it was given; ``END`` if it has
            finished all there is.
    """

    length: int
    groups: Mapping[str, Position]

    @property
    def finished(self) -> Position | None:
        """Before this everybody is done; None if nobody reads it."""
        return min(self.groups.values(), default=None)


@dataclass(frozen=True, slots=True)
class Policy:
    """Keep `age_ms` of what was handled, and at most `length` entries of anything."""

    age_ms: int
    length: int


@dataclass(frozen=True, slots=True)
class Trim:
    """What is to go.

    Args:
        before: what stands before this; ``START``: nothing by position, but all beyond `length`.
        length: how many are to stay at most.
        unread: whether some of it may not have been handled by everybody.
    """

    before: Position
    length: int
    unread: bool


def plan(extent: Extent, policy: Policy, now_ms: int) -> Trim | None:
    """What of a stream goes at `now_ms`, ms of the epoch; None for nothing."""
    if extent.length > policy.length:
        return Trim(START, policy.length, unread=True)
    if not extent.length:
        return None
    old = Position(max(1, now_ms - policy.age_ms), 0)
    return Trim(old if extent.finished is None else min(old, extent.finished), policy.length, unread=False)
