"""How values are set and invalidated: here at once, in Redis in one step, with the others by its log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from app.errors import Unavailable
from app.mesh.cache.announcer import Announcer
from app.mesh.cache.entry import Entry
from app.mesh.cache.plan import names as names_of
from app.mesh.cache.remote import EVERYTHING, TAG, Remote, new_word
from app.mesh.cache.shelf import Shelf


class Writer:
    """Whatever it does, it does here first and once more afterwards: what was loaded meanwhile is old as well."""

    def __init__(
        self,
        shelf: Shelf,
        remote: Remote | None,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ) -> None:
        self._shelf, self._remote = shelf, remote
        self.announcer = Announcer(self._send, everything=TAG + EVERYTHING, spawn=spawn)
        if remote is not None:
            remote.line.listen(self._line_changed)

    @property
    def unsent(self) -> int:
        """How many invalidations Redis does not know of."""
        return len(self.announcer.unsent)

    def close(self) -> None:
        """Send nothing any more."""
        self.announcer.unsent.clear()

    async def invalidate(self, names: Sequence[str]) -> bool:
        """Whether Redis has heard of it; if not, it will."""
        self._shelf.heard(names)
        if self._remote is None or not names:
            return True
        return await self.announcer.announce(names)

    async def set(self, entry: Entry) -> bool:
        """Whether Redis has it; if not, it will forget what it has. Not to be cancelled half-way."""
        names = names_of(entry.key, entry.tags)
        own, fence = names[:1], self._shelf.fence
        self._shelf.heard(own)
        with fence.opened() as since:
            stored = self._remote is None or await self._put(self._remote, entry)
            if not stored:
                self.announcer.keep(own)
            old = fence.broken(names, since)
        self._shelf.heard(own)
        if not old:
            with fence.opened() as since:
                self._shelf.keep(entry, since)
        return stored

    async def _put(self, remote: Remote, entry: Entry) -> bool:
        fresh, usable = entry.expires - entry.made_at, entry.stale_until - entry.made_at
        entry.stamp = new_word()
        try:
            await remote.put(entry.key, entry.payload, entry.tags, word=entry.stamp, fresh=fresh, usable=usable)
        except Unavailable:
            return False
        return True

    async def _send(self, names: Sequence[str]) -> None:
        if self._remote is not None:
            await self._remote.invalidate(names)
        # The watch leaves our own messages out.
        self._shelf.heard(names)

    def _line_changed(self, up: bool, /) -> None:
        if up:
            self.announcer.redis_is_back()
