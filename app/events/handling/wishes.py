"""Who would like to have a partition says so, and whoever has it hands it over: only one who lives can ask."""

from __future__ import annotations

from app.errors import Unavailable
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import Keys

_WISH = lines.load("app.events.handling", "wish")
_WISHED = lines.load("app.events.handling", "wished")

# Longer than the pause between two wishes.
_STANDS_MS = 3_000


class Wishes:
    """Those of one service's processes."""

    def __init__(self, line: Line, keys: Keys, service: str) -> None:
        self._line, self._keys, self._service = line, keys, service

    async def make(self, partition: int, who: str) -> None:
        """`who` would like to have it. Raises: Unavailable."""
        await self._line.run(_WISH, (self._keys.next_owner(self._service, partition),), (who, _STANDS_MS))

    async def of(self, partition: int) -> str | None:
        """Who has last asked for it, and still waits; None if nobody does, or nobody can be heard."""
        try:
            found: bytes | None = await self._line.run(_WISHED, (self._keys.next_owner(self._service, partition),))
        except Unavailable:
            return None
        return found.decode() if found else None
