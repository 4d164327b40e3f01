"""Hypercorn's connections, and all of them together: one write per answer, one sweeper, one end.

Hypercorn writes the head and the body of an answer in two system calls, and starts and cancels a task per request to
watch for idleness: with a bare application that is more than a quarter of a request's CPU (``./scripts/bench json``).
How HTTP/1.1 is read and written is `http1`'s matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol

from app import telemetry
from app.web.serving.http1 import Http1

KEEP_ALIVE_SECONDS = 75.0

# One write gathers what an answer sends within one turn of the loop, up to here.
_COALESCE_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_SWEEP_SECONDS = 1.0

# During a drain, an idle connection stays open for so long: what a client was just sending is still answered, and tells
# it not to use the connection again.
IDLE_GRACE_SECONDS = 0.5
_DRAIN_SWEEP_SECONDS = 0.02

_log = telemetry.log("web.server")


class Connections:
    """All open connections of this process.

    Args:
        make: a connection of a reader and a writer.
        head_seconds: the longest that a request's head may take to arrive.
    """

    def __init__(
        self, make: Callable[..., Connection], loop: asyncio.AbstractEventLoop, *, head_seconds: float
    ) -> None:
        self._make, self._loop, self._head_seconds = make, loop, head_seconds
        self._open: dict[asyncio.Task[Any], Connection] = {}
        self._timer = loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        connection = self._make(reader, writer)
        self._open[task] = connection  # type: ignore[index]  # inside a coroutine there is a task
        try:
            await connection
        except BaseExceptionGroup as group:
            # A client that breaks the protocol is its own trouble, not this process's.
            _log.debug("connection failed", exc_info=group)
        finally:
            del self._open[task]  # type: ignore[arg-type]

    async def drain(self, seconds: float, begin_nothing: Callable[[], Awaitable[None]]) -> None:
        """Wait for the busy ones, close what has been idle for a moment, cancel what takes too long.

        Args:
            begin_nothing: called once all clients had a moment to hear of it: nothing new begins from then on.
        """
        self._timer.cancel()
        started = self._loop.time()
        while True:
            # At least once: a connection that was just accepted has no task yet.
            await asyncio.sleep(_DRAIN_SWEEP_SECONDS)
            lasted = self._loop.time() - started
            if not self._open or lasted >= seconds:
                break
            if lasted >= IDLE_GRACE_SECONDS:
                await begin_nothing()
            self._close_idle(IDLE_GRACE_SECONDS, not_before=started)
        await begin_nothing()
        await self._cut_off()

    async def _cut_off(self) -> None:
        late = list(self._open)
        if not late:
            return
        for task in late:
            task.cancel()
        _log.warning("requests were cut off by the end of the drain", connections=len(late))
        await asyncio.wait(late, timeout=1.0)

    def _sweep(self) -> None:
        self._close_idle(KEEP_ALIVE_SECONDS)
        self._close_slow()
        self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _close_idle(self, idle_seconds: float, *, not_before: float = 0.0) -> None:
        latest = self._loop.time() - idle_seconds
        if latest < not_before:
            return
        for connection in list(self._open.values()):
            since = connection.idle_task.since
            if since is not None and since <= latest:
                connection.close_idle()

    def _close_slow(self) -> None:
        latest = self._loop.time() - self._head_seconds
        for connection in list(self._open.values()):
            if connection.head_since is not None and connection.head_since <= latest:
                connection.close_slow()


class Connection(TCPServer):
    """Hypercorn's connection, with one write per answer and no task to watch for idleness."""

    idle_task: _Idle  # type: ignore[assignment]  # it has what Hypercorn uses of its task

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop, *args: Any) -> None:
        super().__init__(app, loop, *args)
        self.idle_task = _Idle(loop)
        # Since when (loop time) a part of a request's head is here, and not all of it.
        self.head_since: float | None = None
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._closing: asyncio.Task[None] | None = None

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._gather(event.data)
            return
        # Anything else follows the end of an answer or of the connection: let out what is gathered first.
        self._write_out()
        if isinstance(event, Updated):
            self.idle_task.since = self.loop.time() if event.idle else None
            return
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        """Hypercorn's, without a ``wait_for`` around every read: a silent client is the sweeper's matter."""
        self._shorten_http1()
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(_READ_BYTES)
            except OSError:
                break
            await self.protocol.handle(RawData(data))
            self._note_head()
        await self.protocol.handle(Closed())

    def _shorten_http1(self) -> None:
        outer = self.protocol
        if isinstance(outer.protocol, H11Protocol):
            outer.protocol = Http1(
                outer.app,
                outer.config,
                outer.context,
                outer.task_group,
                outer.state,
                outer.ssl,
                outer.client,
                outer.server,
                outer.send,
            )

    def close_idle(self) -> None:
        self.idle_task.since = None
        self._closing = self.loop.create_task(self._initiate_server_close())

    def close_slow(self) -> None:
        self.idle_task.since = self.head_since = None
        self._closing = self.loop.create_task(self._time_out())

    async def _time_out(self) -> None:
        if isinstance(self.protocol.protocol, H11Protocol):
            await self.protocol.protocol._send_error_response(408)  # noqa: SLF001  # as it answers a malformed head
        self._write_out()
        await self._initiate_server_close()

    def _note_head(self) -> None:
        # Between requests, what has been read and is no request yet is the beginning of a head.
        if self.idle_task.since is None or not self._has_rest():
            self.head_since = None
        elif self.head_since is None:
            self.head_since = self.loop.time()

    def _has_rest(self) -> bool:
        protocol = self.protocol.protocol
        return isinstance(protocol, H11Protocol) and bool(protocol.connection.trailing_data[0])

    async def _gather(self, data: bytes) -> None:
        if not data:
            return
        if not self._gathered:
            self.loop.call_soon(self._write_out)
        self._gathered.append(data)
        self._gathered_bytes += len(data)
        # What the transport could not write yet counts too, or a client that reads slowly would fill our memory.
        if max(self._gathered_bytes, self.writer.transport.get_write_buffer_size()) >= _COALESCE_BYTES:
            joined, self._gathered, self._gathered_bytes = b"".join(self._gathered), [], 0
            await super().protocol_send(RawData(joined))  # waits where the client reads slowly

    def _write_out(self) -> None:
        if self._gathered:
            joined, self._gathered, self._gathered_bytes = b"".join(self._gathered), [], 0
            if not self.writer.transport.is_closing():
                self.writer.write(joined)


class _Idle:
    """In the place of Hypercorn's idle task: since when (loop time) a connection waits for a request."""

    __slots__ = ("_loop", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.since: float | None = None

    async def restart(self, task_group: Any, action: Any) -> None:
        self.since = self._loop.time()

    async def stop(self) -> None:
        self.since = None


class _Config(Config):
    """Hypercorn's settings, with a date that is written once a second and not once an answer."""

    _date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, super().response_headers(protocol))
        return self._date[1]


def config() -> Config:
    made = _Config()
    made.keep_alive_timeout = KEEP_ALIVE_SECONDS
    made.keep_alive_max_requests = 1_000_000
    made.include_server_header = False
    made.errorlog = logging.getLogger("hypercorn.error")  # which telemetry brings into our own lines
    made.accesslog = None
    return made
