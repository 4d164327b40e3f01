"""A load generator for HTTP/1.1 over kept-alive connections: a bare Protocol, so that it is never what is measured.

    async with ClosedLoop(target, connections=32) as load:
        await asyncio.sleep(1)          # warm-up
        load.restart_counting()
        await asyncio.sleep(3)
        tally = load.tally()

Closed loop: each connection sends its next request when its last one was answered. Open loop: requests come at a
given rate whatever the server does, and waiting for a free connection counts as latency ("coordinated omission" is
what forgets it). Burst: so many at once.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from array import array
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from app.errors import BadInput
from app.lab import figures
from app.lab.http1 import BrokenReply, Reply, ReplyReader

TIMEOUT_SECONDS = 30.0
_SWEEP_SECONDS = 0.25
# Who is refused does not come back at once, or the generator would do nothing else.
_RECONNECT_SECONDS = 0.05
# A server's backlog is short: connections are opened so many at a time.
_OPENING_AT_ONCE = 64
_ARRIVALS_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Target:
    """The one request that is sent over and over.

    Args:
        path: with its query.
        headers: besides Host and Content-Length.
    """

    host: str
    port: int
    path: str = "/"
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @classmethod
    def of(cls, url: str) -> Target:
        """``http://host:port/path?query``. Raises: BadInput: it is another kind of address."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise BadInput("The load generator speaks plain http://host:port/path")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.hostname, parts.port or 80, path)

    def wire(self) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of the requests that ended in `seconds`.

    Args:
        statuses: answers by status.
        errors: requests without an answer, by reason: ``refused``, ``reset``, ``closed``, ``timeout``, ``broken``.
        latencies: seconds of each answered request, ascending.
        body_bytes: of all answers.
    """

    seconds: float
    statuses: Mapping[int, int]
    errors: Mapping[str, int]
    latencies: Sequence[float]
    body_bytes: int

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        """Requests without an answer, and answers that say that it did not work (4xx and 5xx)."""
        refused = sum(count for status, count in self.statuses.items() if status >= 400)
        return sum(self.errors.values()) + refused

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    def latency_ms(self, percent: float) -> float:
        """The latency that `percent` % of the answered requests do not exceed; NaN if there are none."""
        return figures.percentile(self.latencies, percent) * 1000


class _Counts:
    """A tally in the making."""

    __slots__ = ("body_bytes", "errors", "latencies", "since", "statuses")

    def __init__(self) -> None:
        self.since = time.perf_counter()
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.latencies = array("d")
        self.body_bytes = 0

    def tally(self, *, until: float) -> Tally:
        ordered = sorted(self.latencies)
        return Tally(until - self.since, dict(self.statuses), dict(self.errors), ordered, self.body_bytes)


class Load(ABC):
    """Connections that send one target's request; a subclass says when. Use as an async context manager.

    Args:
        connections: how many are kept open.
        timeout_seconds: a request that takes longer is an error, and its connection is dropped.
    """

    def __init__(self, target: Target, *, connections: int, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.target = target
        self.request = target.wire()
        self.bodiless = target.method == "HEAD"
        self._wanted = connections
        self._timeout_seconds = timeout_seconds
        self._open: set[_Connection] = set()
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._openers: set[asyncio.Task[None]] = set()
        self._running = False
        self._counts = _Counts()
        self._sweeper: asyncio.TimerHandle | None = None

    @abstractmethod
    def idle(self, connection: _Connection) -> None:
        """`connection` has nothing to do: give it a request now, or remember it."""

    @abstractmethod
    def forget(self, connection: _Connection) -> None:
        """`connection` is no more: it must not be given another request."""

    async def __aenter__(self) -> Self:
        self._running = True
        self._loop = asyncio.get_running_loop()
        self._sweep()
        for _ in range(self._wanted):
            self._open_another(delay_seconds=0.0)
        self._counts = _Counts()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = False
        if self._sweeper is not None:
            self._sweeper.cancel()
        for opener in self._openers:
            opener.cancel()
        await asyncio.gather(*self._openers, return_exceptions=True)
        for connection in list(self._open):
            connection.transport.abort()
        # Until the loop has told them, they are still open.
        while self._open:
            await asyncio.sleep(0)

    def restart_counting(self) -> None:
        """Forget what was counted so far; requests in flight count when they end."""
        self._counts = _Counts()

    def tally(self) -> Tally:
        """What was counted since the start, or since `restart_counting`."""
        return self._counts.tally(until=time.perf_counter())

    # What connections report.

    def answered(self, connection: _Connection, reply: Reply, seconds: float) -> None:
        counts = self._counts
        counts.statuses[reply.status] += 1
        counts.latencies.append(seconds)
        counts.body_bytes += reply.body_bytes
        if self._running and reply.keeps_alive:
            self.idle(connection)
        else:
            connection.transport.close()

    def failed(self, reason: str) -> None:
        if self._running:
            self._counts.errors[reason] += 1

    def opened(self, connection: _Connection) -> None:
        self._open.add(connection)
        if self._running:
            self.idle(connection)
        else:
            connection.transport.abort()

    def closed(self, connection: _Connection, *, failed: bool) -> None:
        self._open.discard(connection)
        self.forget(connection)
        if self._running:
            self._open_another(delay_seconds=_RECONNECT_SECONDS if failed else 0.0)

    # The connections.

    def _open_another(self, *, delay_seconds: float) -> None:
        opener = self._loop.create_task(self._connect(delay_seconds))
        self._openers.add(opener)
        opener.add_done_callback(self._openers.discard)

    async def _connect(self, delay_seconds: float) -> None:
        while self._running:
            await asyncio.sleep(delay_seconds)
            delay_seconds = _RECONNECT_SECONDS
            try:
                async with self._opening, asyncio.timeout(self._timeout_seconds):
                    await self._loop.create_connection(lambda: _Connection(self), self.target.host, self.target.port)
            except TimeoutError:
                self.failed("timeout")
            except OSError:
                self.failed("refused")
            else:
                return

    def _sweep(self) -> None:
        oldest = time.perf_counter() - self._timeout_seconds
        for connection in list(self._open):
            if connection.busy and connection.since < oldest:
                connection.fail("timeout")
        self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)


class _Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    __slots__ = ("_failed", "_load", "_reader", "busy", "since", "transport")

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self._load = load
        self._reader = ReplyReader(bodiless=load.bodiless)
        self._failed = False
        self.busy = False
        self.since = 0.0

    def send(self, since: float) -> None:
        """Args: since: where its latency begins, in seconds of ``time.perf_counter``."""
        self.busy, self.since = True, since
        self.transport.write(self._load.request)

    def fail(self, reason: str) -> None:
        """Give up the request, and with it the connection."""
        self.busy, self._failed = False, True
        self._load.failed(reason)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a Protocol is typed for more kinds than TCP
        self._load.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            # Nobody asked: after a failure it is late, otherwise the server is not to be trusted.
            if not self._failed:
                self.fail("broken")
            return
        try:
            reply = self._reader.feed(data)
        except BrokenReply:
            self.fail("broken")
            return
        if reply is not None:
            self._finish(reply)

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            last = self._reader.end() if error is None else None
            if last is not None:
                self._finish(last)
            else:
                self.busy, self._failed = False, True
                self._load.failed("closed" if error is None else "reset")
        self._load.closed(self, failed=self._failed)

    def _finish(self, reply: Reply) -> None:
        self.busy = False
        self._load.answered(self, reply, time.perf_counter() - self.since)


class ClosedLoop(Load):
    """Every connection always has one request in flight."""

    def idle(self, connection: _Connection) -> None:
        connection.send(time.perf_counter())

    def forget(self, connection: _Connection) -> None:
        """It was not remembered."""


class OpenLoop(Load):
    """Requests come at an even rate; latency counts from when each was due.

    Args:
        per_second: how many are due in each second.
        connections: the most that are in flight at once; what is due beyond that waits.
    """

    def __init__(
        self, target: Target, *, per_second: float, connections: int, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        super().__init__(target, connections=connections, timeout_seconds=timeout_seconds)
        self._interval = 1 / per_second
        self._due: deque[float] = deque()
        self._free: dict[_Connection, None] = {}
        self._clockwork: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._next = time.perf_counter()
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clockwork is not None:
            self._clockwork.cancel()
        await super().__aexit__(kind, error, trace)

    @property
    def waiting(self) -> int:
        """Requests that are due and for which no connection is free: the server does not keep up."""
        return len(self._due)

    def idle(self, connection: _Connection) -> None:
        self._free[connection] = None
        self._match()

    def forget(self, connection: _Connection) -> None:
        self._free.pop(connection, None)

    def _tick(self) -> None:
        now = time.perf_counter()
        while self._next <= now:
            self._due.append(self._next)
            self._next += self._interval
        self._match()
        self._clockwork = self._loop.call_later(_ARRIVALS_SECONDS, self._tick)

    def _match(self) -> None:
        while self._due and self._free:
            connection, _ = self._free.popitem()
            connection.send(self._due.popleft())


class Burst(Load):
    """All connections are opened first; then `fire` sends one request on each at the same moment."""

    def __init__(self, target: Target, *, requests: int, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        super().__init__(target, connections=requests, timeout_seconds=timeout_seconds)
        self._free: dict[_Connection, None] = {}
        self._changed = asyncio.Event()
        self._fired = False
        self._ended = 0

    def idle(self, connection: _Connection) -> None:
        self._free[connection] = None
        self._changed.set()

    def forget(self, connection: _Connection) -> None:
        self._free.pop(connection, None)

    def answered(self, connection: _Connection, reply: Reply, seconds: float) -> None:
        self._ended += 1
        super().answered(connection, reply, seconds)
        self._changed.set()

    def failed(self, reason: str) -> None:
        self._ended += 1
        super().failed(reason)
        self._changed.set()

    def closed(self, connection: _Connection, *, failed: bool) -> None:
        # Once fired there is nothing left to send: no connection takes a lost one's place.
        if not self._fired:
            super().closed(connection, failed=failed)
            return
        self._open.discard(connection)
        self.forget(connection)

    async def fire(self) -> Tally:
        """Send and wait for all; the tally's `seconds` is the time from the first byte to the last answer.

        Raises:
            TimeoutError: the connections can't be opened.
        """
        async with asyncio.timeout(self._timeout_seconds):
            await self._until(lambda: len(self._free) >= self._wanted)
        sending, self._free, self._ended = list(self._free), {}, 0
        self._fired = True
        self.restart_counting()
        for connection in sending:
            connection.send(time.perf_counter())
        # Each of them ends, by an answer, a lost connection or its timeout.
        await self._until(lambda: self._ended >= len(sending))
        return self.tally()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()
