"""What every server of the bench stands on: a listening socket that it is given, uvloop, and SIGTERM as its end.

It loads nothing of the house.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

LOOPBACK = "127.0.0.1"
BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
DRAIN_SECONDS = 2
REDIS_SECONDS = 2.0


def inherited(fd: int) -> socket.socket:
    """The listening socket that this process was started with."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket) -> str:
    return f"http://{LOOPBACK}:{sock.getsockname()[1]}"


def make(module: str, sock: socket.socket) -> Any:
    """The application that `module` makes, told where it will be served."""
    return importlib.import_module(module).make(url_of(sock))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def stop_on_sigterm() -> asyncio.Event:
    """An event that SIGTERM sets."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop
