"""The body of a request on its way to a service: whole where it is small, so that the mesh may send it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from app.errors import BodyTooLarge
from app.web.bridge.inbox import Inbox

SMALL_BYTES = 65_536

# A body of unknown length counts as whole if its end comes this soon; one that dawdles is a stream.
PATIENCE_SECONDS = 0.005


class Upload:
    """One request's body.

    Args:
        inbox: where it arrives.
        declared: its Content-Length in bytes, None when the client gave none.
        limit: the most bytes that are let through.
    """

    __slots__ = ("_coming", "_declared", "_inbox", "_limit", "_taken")

    def __init__(self, inbox: Inbox, *, declared: int | None, limit: int) -> None:
        self._inbox = inbox
        self._declared = declared
        self._limit = limit
        self._taken = 0
        self._coming: asyncio.Future[bytes] | None = None

    async def open(self) -> bytes | AsyncIterator[bytes]:
        """The whole body if it is small and at hand, else its chunks as they come.

        Raises:
            BodyTooLarge: it announces more than the limit; or, out of the iteration, it turns out to be longer.
            ClientDisconnected: the client has gone.
        """
        if not self._inbox.unread:
            return b""
        if self._declared is None:
            return await self._peek()
        if self._declared > self._limit:
            raise self._too_large()
        return await self._whole() if self._declared <= SMALL_BYTES else self._chunks([])

    def close(self) -> None:
        """Stop receiving."""
        if self._coming is None:
            return
        if self._coming.done() and not self._coming.cancelled():
            self._coming.exception()  # nobody else will ask for it
        self._coming.cancel()

    async def _whole(self) -> bytes:
        parts = []
        while chunk := await self._inbox.chunk():
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _peek(self) -> bytes | AsyncIterator[bytes]:
        head: list[bytes] = []
        while sum(map(len, head)) <= SMALL_BYTES:
            self._coming = asyncio.ensure_future(self._inbox.chunk())
            await asyncio.wait({self._coming}, timeout=PATIENCE_SECONDS)
            if not self._coming.done():
                return self._chunks(head)
            if not (chunk := self._coming.result()):
                return b"".join(head)
            head.append(chunk)
            self._coming = None
        return self._chunks(head)

    async def _chunks(self, head: list[bytes]) -> AsyncIterator[bytes]:
        while head:
            yield self._counted(head.pop(0))
        if self._coming is not None and (chunk := await self._coming):
            yield self._counted(chunk)
        while chunk := await self._inbox.chunk():
            yield self._counted(chunk)

    def _counted(self, chunk: bytes) -> bytes:
        self._taken += len(chunk)
        if self._taken > self._limit:
            raise self._too_large()
        return chunk

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"A body may have at most {self._limit} bytes")
