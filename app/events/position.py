"""Where in a stream an event stands: ``<batch>-<row>``, the id of its entry in Redis.

The relay numbers the batches in which it sends, in milliseconds of the clock or one more than the last; the row is the event's
in the outbox. Both are in the outbox, so a stream that was lost is rebuilt with the same ids, and what a stream's last id says
tells exactly which rows it lacks.
"""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """Positions compare as the entries stand in the stream."""

    batch: int
    row: int

    def __str__(self) -> str:
        return f"{self.batch}-{self.row}"


START = Position(0, 0)
# Behind every event.
END = Position(2**63 - 1, 0)


def parse(text: str | bytes) -> Position:
    """Read an entry's id."""
    batch, _, row = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return Position(int(batch), int(row or 0))
