"""Ports on this machine: which are free, and how an address is written."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from app.errors import Unavailable

# Connections that wait here while their server is replaced, or starts again after a crash.
BACKLOG = 2048
LOOPBACK = "127.0.0.1"
FIRST_UNPRIVILEGED = 1024
LAST = 65535
# What a server binds to be reached from everywhere; we reach it here.
WILDCARDS = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104  # compared, not bound


def is_free(host: str, port: int) -> bool:
    """Whether a server may listen there now.

    Raises:
        Unavailable: not for want of a free port: the host is not ours, or the port is not for us.
    """
    with _socket(host) as probe:
        return _binds(probe, host, port)


def require(host: str, port: int) -> None:
    """Raises: Unavailable: the port is not free."""
    if not is_free(host, port):
        raise _taken(port)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for servers that inherit it; connections queue up from now on.

    Raises:
        Unavailable: the port is not free.
    """
    sock = _socket(host)
    try:
        if not _binds(sock, host, port):
            raise _taken(port)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def free_from(first: int) -> Iterator[int]:
    """The free loopback ports from `first` upwards, then round, each given once.

    They are counted up rather than asked of the kernel: an outgoing connection of any program may take a port of the
    kernel's own (ephemeral) range in the seconds that a process needs to start.

    Raises:
        Unavailable: none is left.
    """
    for port in (*range(max(first, FIRST_UNPRIVILEGED), LAST + 1), *range(FIRST_UNPRIVILEGED, first)):
        if is_free(LOOPBACK, port):
            yield port
    raise Unavailable("No free port is left on this machine")


def any_free() -> int:
    """A port of the kernel's choice."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def address(host: str, port: int) -> str:
    """Where to reach from this machine what listens there, as in ``http://127.0.0.1:8000``."""
    reachable = WILDCARDS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # As servers do: a connection that lingers from the last run is no obstacle.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _binds(sock: socket.socket, host: str, port: int) -> bool:
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise Unavailable(f"Cannot listen on {host} port {port}: {error.strerror}") from error
    return True


def _taken(port: int) -> Unavailable:
    return Unavailable(f"Port {port} is taken; choose another with --port")
