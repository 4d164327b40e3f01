"""Hypercorn, driven as one process of a mesh wants it: one listening socket, one event loop, a drain of its own.

Hypercorn's connections (HTTP/1.1 and cleartext HTTP/2) serve here; what surrounds them is ours, for three reasons. Its
``graceful_timeout`` can hang on Python ≥ 3.12.1 (hypercorn#308). It writes the head and the body of an answer in two
system calls, and starts and cancels a task per request to watch for idleness: with a bare application that is more
than a quarter of a request's CPU (``./scripts/bench json``). And a process that stops has to tell its peers first.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.utils import LifespanFailureError

from app import telemetry
from app.errors import Misconfigured

KEEP_ALIVE_SECONDS = 75.0
BACKLOG = 2048

# One write gathers what an answer sends within one turn of the loop, up to here.
_COALESCE_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_WATCHDOG_EXIT_CODE = 70
# Objects that a request makes are few and mostly without cycles: the youngest generation may grow larger.
_COLLECTOR_THRESHOLDS = (10_000, 20, 50)

_log = telemetry.log("web.server")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host`:`port` (0: any free one); connections queue up from now on.

    Raises:
        Misconfigured: the address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Misconfigured(f"Can't listen on {host}:{port}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def serve(
    app: Any,
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    drain_seconds: float,
    on_stop: Callable[[], Awaitable[None]],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve `app` on `sock` until `stop` is set, then drain.

    `on_ready` is called when everything has started. Stopping: `on_stop` (tell the peers; requests are still accepted), close the listener, wait for what is in flight
    for at most `drain_seconds`, run the application's shut-down functions.

    Raises:
        Misconfigured: a start-up function failed; nothing was served.
    """
    config = _config()
    loop = asyncio.get_running_loop()
    wrapped = ASGIWrapper(app)
    state: dict[str, Any] = {}
    lifespan = Lifespan(wrapped, config, loop, state)
    lifespan_task = loop.create_task(lifespan.handle_lifespan())
    try:
        await _start(lifespan, lifespan_task)
    except BaseException:
        sock.close()
        raise
    context = WorkerContext(None)
    connections = _Connections(lambda r, w: _Connection(wrapped, loop, config, context, state, r, w), loop)
    listener = await asyncio.start_server(connections.serve, sock=sock, backlog=BACKLOG)
    try:
        on_ready()
        await stop.wait()
        await on_stop()
    finally:
        await context.terminated.set()
        listener.close()
        await connections.drain(drain_seconds)
        await lifespan.wait_for_shutdown()
        lifespan_task.cancel()
        await asyncio.gather(lifespan_task, return_exceptions=True)


class _Connections:
    """All open connections of this process: one sweeper for the idle ones, and the end of all."""

    def __init__(self, make: Callable[..., _Connection], loop: asyncio.AbstractEventLoop) -> None:
        self._make = make
        self._loop = loop
        self._open: dict[asyncio.Task[Any], _Connection] = {}
        self._timer = loop.call_later(1.0, self._sweep)

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

    async def drain(self, seconds: float) -> None:
        """Close the idle ones, wait for the busy ones, cancel what takes too long."""
        self._timer.cancel()
        self._close_idle(idle_seconds=0.0)
        if self._open:
            await asyncio.wait(list(self._open), timeout=seconds)
        late = list(self._open)
        for task in late:
            task.cancel()
        if late:
            _log.warning("requests were cut off by the end of the drain", connections=len(late))
            await asyncio.wait(late, timeout=1.0)

    def _sweep(self) -> None:
        self._close_idle(idle_seconds=KEEP_ALIVE_SECONDS)
        self._timer = self._loop.call_later(1.0, self._sweep)

    def _close_idle(self, *, idle_seconds: float) -> None:
        now = self._loop.time()
        for connection in list(self._open.values()):
            since = connection.idle_task.since
            if since is not None and now - since >= idle_seconds:
                connection.close_idle()


class _Connection(TCPServer):
    """Hypercorn's connection, with one write per answer and no task to watch for idleness."""

    idle_task: _Idle  # type: ignore[assignment]  # it has what Hypercorn uses of its task

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop, *args: Any) -> None:
        super().__init__(app, loop, *args)
        self.idle_task = _Idle(loop)
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
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(_READ_BYTES)
            except OSError:
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())

    def close_idle(self) -> None:
        self.idle_task.since = None
        self._closing = self.loop.create_task(self._initiate_server_close())

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


async def _start(lifespan: Lifespan, task: asyncio.Task[None]) -> None:
    await lifespan.wait_for_startup()
    if not task.done():
        return
    error = task.exception()
    if isinstance(error, LifespanFailureError):
        raise Misconfigured(str(error).partition("'")[2].rstrip("'") or str(error)) from error
    if error is not None:
        raise error


class _Config(Config):
    """Hypercorn's settings, with a date that is written once a second and not once an answer."""

    _date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, super().response_headers(protocol))
        return self._date[1]


def _config() -> Config:
    config = _Config()
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")  # which telemetry brings into our own lines
    config.accesslog = None
    return config


def calm_collector() -> None:
    """Keep the garbage collector off what lives as long as the process: once started, that is most of the heap.

    A full pass over all modules stops the loop for some 60 ms, and comes more than once a second under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


def end_process_after(seconds: float) -> None:
    """End this process `seconds` from now, whatever holds it up: a stuck thread must not keep it for ever."""

    def end() -> None:
        sys.stderr.flush()
        os._exit(_WATCHDOG_EXIT_CODE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
