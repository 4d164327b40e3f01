"""Hypercorn, driven as one process of a mesh wants it: one listening socket, one event loop, a drain of its own.

Hypercorn's connections (HTTP/1.1 and cleartext HTTP/2) serve here (`lines`); what surrounds them is ours, for two
reasons. Its ``graceful_timeout`` can hang on Python ≥ 3.12.1 (hypercorn#308). And a process that stops has to tell its
peers first, and must not cut off a client that has not heard of it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.utils import LifespanFailureError

from app.errors import Misconfigured
from app.web.serving import lines
from app.web.serving.lines import Connection, Connections

BACKLOG = 2048
HEAD_SECONDS = 10.0

_WATCHDOG_EXIT_CODE = 70
# Objects that a request makes are few and mostly without cycles: the youngest generation may grow larger.
_COLLECTOR_THRESHOLDS = (10_000, 20, 50)
# A connection is a file, and a proxied one two; the usual 1,024 would end long before any limit of ours.
_OPEN_FILES = 65_536


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


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that whoever started this process has handed over as `descriptor`.

    Other processes may hold it too: they share its queue of connections.

    Raises:
        Misconfigured: it is none.
    """
    try:
        sock = socket.socket(fileno=descriptor)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise Misconfigured(f"MESH_LISTEN_FD: {descriptor} is no socket ({error.strerror})") from error
    if not listens:
        raise Misconfigured(f"MESH_LISTEN_FD: {descriptor} is not a listening socket")
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
    *socks: socket.socket,
    stop: asyncio.Event,
    drain_seconds: float,
    on_stop: Callable[[], Awaitable[None]],
    on_ready: Callable[[], None] = lambda: None,
    head_seconds: float = HEAD_SECONDS,
) -> None:
    """Serve `app` on `socks` until `stop` is set, then drain.

    Stopping: `on_stop` (tell the peers; requests are still accepted), close our copies of the listeners, wait for what
    is in flight for at most `drain_seconds`, run the application's shut-down functions.

    Args:
        on_ready: called when everything has started.
        head_seconds: the longest that a request's head may take to arrive.

    Raises:
        Misconfigured: a start-up function failed; nothing was served.
    """
    config = lines.config()
    loop = asyncio.get_running_loop()
    wrapped = ASGIWrapper(app)
    state: dict[str, Any] = {}
    lifespan = Lifespan(wrapped, config, loop, state)
    lifespan_task = loop.create_task(lifespan.handle_lifespan())
    try:
        await _start(lifespan, lifespan_task)
    except BaseException:
        for sock in socks:
            sock.close()
        raise
    context = WorkerContext(None)
    opened = Connections(
        lambda r, w: Connection(wrapped, loop, config, context, state, r, w), loop, head_seconds=head_seconds
    )
    listeners = [await asyncio.start_server(opened.serve, sock=sock, backlog=BACKLOG) for sock in socks]
    try:
        on_ready()
        await stop.wait()
        await on_stop()
    finally:
        for listener in listeners:
            # This closes our descriptor and no more: what waits in the queue of a shared socket is for the others.
            listener.close()
        await opened.drain(drain_seconds, context.terminated.set)
        await lifespan.wait_for_shutdown()
        lifespan_task.cancel()
        await asyncio.gather(lifespan_task, return_exceptions=True)


async def _start(lifespan: Lifespan, task: asyncio.Task[None]) -> None:
    await lifespan.wait_for_startup()
    if not task.done():
        return
    error = task.exception()
    if isinstance(error, LifespanFailureError):
        raise Misconfigured(str(error).partition("'")[2].rstrip("'") or str(error)) from error
    if error is not None:
        raise error


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


def allow_open_files() -> None:
    """As many open files as we need, or as we are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
