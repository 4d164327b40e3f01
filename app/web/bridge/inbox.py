"""The receiving half of one ASGI request: the body's chunks, then the news that the client has gone.

Only one party may call ``receive``. While the view reads its body, that is the view; otherwise, once a request has
lasted for a while, a watcher keeps one ``receive`` pending, so that a client's leaving is noticed. A chunk that the
watcher happens to get waits here for the view: at most one, so a large body is never held in memory.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from app import deadline
from app.deadline import Timed
from app.errors import RequestTimeout
from app.web.bridge.switch import await_

Receive = Callable[[], Any]

# Most requests end sooner, also on a busy machine: they pay for no watcher.
WATCH_AFTER_SECONDS = 0.1


class Inbox:
    """What arrives for one request.

    Args:
        receive: ASGI's receive.
        has_body: whether the request's headers announce a body; without one nothing is ever read.
    """

    __slots__ = ("_bucket", "_complete", "_loop", "_on_disconnect", "_pending", "_receive", "disconnected")

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._complete = not has_body
        self._pending: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bucket: set[Timed] | None = None
        self._on_disconnect: Callable[[], Any] | None = None
        self.disconnected = False

    async def chunk(self) -> bytes:
        """The next non-empty part of the body; ``b""`` when it has ended.

        Raises:
            ClientDisconnected: the client went away in the middle of it.
            RequestTimeout: it comes too slowly (`intake`).
        """
        while not self._complete:
            message = await self._next_message()
            if message["type"] == "http.disconnect":
                self._leave()
                raise ClientDisconnected
            self._complete = not message.get("more_body", False)
            if body := message.get("body", b""):
                return body  # type: ignore[no-any-return]  # ASGI messages are untyped dictionaries
        return b""

    @property
    def unread(self) -> bool:
        """Whether some of the body has not been read."""
        return not self._complete

    async def discard(self, limit_bytes: int, limit_seconds: float) -> None:
        """Read and throw away what is left of the body, up to a limit."""
        taken = 0
        with suppress(TimeoutError, ClientDisconnected, RequestTimeout):
            async with asyncio.timeout(limit_seconds):
                while taken < limit_bytes and (chunk := await self.chunk()):
                    taken += len(chunk)

    def watch(self, loop: asyncio.AbstractEventLoop, on_disconnect: Callable[[], Any]) -> None:
        """Call `on_disconnect` once if the client goes away; starts after ``WATCH_AFTER_SECONDS``."""
        self._on_disconnect = on_disconnect
        self._loop = loop
        self._listen_later()

    def close(self) -> None:
        """Stop watching; from now on a disconnect means nothing."""
        self._on_disconnect = None
        if self._bucket is not None:
            self._bucket.discard(self)
            self._bucket = None
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    async def _next_message(self) -> Any:
        if self._pending is None:
            return await self._receive()
        # Shielded: a cancelled reader must not take the watcher's receive, and the chunk in it, along.
        message = await asyncio.shield(self._pending)
        self._pending = None
        if self._on_disconnect is not None:
            self._listen_later()
        return message

    def _listen_later(self) -> None:
        if self._loop is not None:
            self._bucket = deadline.of(self._loop).bucket(self._loop, WATCH_AFTER_SECONDS)
            self._bucket.add(self)

    def fire(self) -> None:
        """The request has lasted for a while: listen for the client's leaving."""
        self._bucket = None
        if self._pending is None and not self.disconnected:
            self._pending = asyncio.ensure_future(self._receive())
            self._pending.add_done_callback(self._heard)

    def _heard(self, pending: asyncio.Task[Any]) -> None:
        if not pending.cancelled() and pending.exception() is None:
            message = pending.result()
            if message["type"] == "http.disconnect":
                self._leave()
            elif self._complete and self._pending is pending:
                self._pending = None  # an empty trailing message: nobody will come to fetch it
                self.fire()

    def _leave(self) -> None:
        self.disconnected = self._complete = True
        if self._on_disconnect is not None:
            self._on_disconnect()
            self._on_disconnect = None


class InputStream(io.RawIOBase):
    """``wsgi.input``: the body as a blocking file for code that runs in the bridge; it holds at most one chunk.

    `limit` is the most bytes that may come, whatever the headers said; the one more raises
    ``RequestEntityTooLarge``. (Werkzeug's own ``LimitedStream`` hands out a body that is cut off at the limit.)
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._rest = memoryview(b"")
        self._taken = 0
        self.limit: int | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._refill()
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line, by chunks; ``RawIOBase`` would read it a byte at a time."""
        limit = -1 if size is None else size
        line = bytearray()
        while limit < 0 or len(line) < limit:
            if not self._rest:
                self._refill()
                if not self._rest:
                    break
            window = self._rest if limit < 0 else self._rest[: limit - len(line)]
            end = bytes(window).find(b"\n") + 1 or len(window)
            line += window[:end]
            self._rest = self._rest[end:]
            if line.endswith(b"\n"):
                break
        return bytes(line)

    def _refill(self) -> None:
        chunk = await_(self._inbox.chunk())
        self._taken += len(chunk)
        if self.limit is not None and self._taken > self.limit:
            raise RequestEntityTooLarge
        self._rest = memoryview(chunk)
