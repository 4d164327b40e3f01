"""Who is told that a family of tokens has ended, before its tokens have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol, cast

from app.web import resources

# Session → until when, in seconds of the epoch, a token of it could still be valid.
Post = Callable[[Mapping[str, float]], Awaitable[object]]


class Notices(Protocol):
    """Tells whoever verifies tokens."""

    async def revoked(self, sid: str, until: datetime) -> None:
        """No token of family `sid` counts any more; `until` then, one could still be valid."""


class NullNotices:
    """Tells nobody: tokens live until they expire."""

    async def revoked(self, sid: str, until: datetime) -> None:
        """Nothing."""


class BoardNotices:
    """Puts it up on a board that every process has a copy of."""

    def __init__(self, post: Post) -> None:
        self._post = post

    async def revoked(self, sid: str, until: datetime) -> None:
        await self._post({sid: until.timestamp()})


def current() -> Notices:
    """This process's."""
    board = getattr(resources, "board", None)
    return NullNotices() if board is None else BoardNotices(cast(Post, board.post))
