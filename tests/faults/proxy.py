"""A TCP line that misbehaves: between a caller and whatever it calls, with its own thread and event loop.

    with proxy.to("127.0.0.1", 6379) as line:
        line.delay(0.05); line.stall(); line.flow(); line.reset(); line.cut(); line.mend(); line.limit(1000)

Every verb holds for what is open and for what comes, and has been carried out when it returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK_BYTES = 65_536
_VERB_SECONDS = 10.0
# A pause between two pieces of a limited line.
_TICK_SECONDS = 0.02
_HARD_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Made by `to`. `port` stays the same while it is cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._far = (host, port)
        self.port = 0
        self.accepted = 0
        self._delay_seconds = 0.0
        self._bytes_per_second: float | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __repr__(self) -> str:
        state = "open" if self._server else "cut"
        return f"<Proxy 127.0.0.1:{self.port} to {self._far[0]}:{self._far[1]}, {state}, {len(self._writers)} ends>"

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._do(lambda: len(self._tasks))

    # Verbs.

    def delay(self, seconds: float) -> None:
        """Each piece of data comes so much later, in either direction."""
        self._do(lambda: setattr(self, "_delay_seconds", seconds))

    def limit(self, bytes_per_second: float | None) -> None:
        """So much, and no more, passes in each direction of each connection; None: as much as comes."""
        self._do(lambda: setattr(self, "_bytes_per_second", bytes_per_second))

    def stall(self) -> None:
        """Take connections, but read nothing and pass nothing on."""
        self._do(self._flowing.clear)

    def flow(self) -> None:
        """Pass on again, with what has gathered."""
        self._do(self._flowing.set)

    def reset(self) -> None:
        """End what is open with RST, as a host does that has forgotten its connections; new ones are welcome."""
        self._run(self._end(hard=True))

    def cut(self) -> None:
        """End what is open with FIN, and refuse what comes."""
        self._run(self._cut())

    def mend(self) -> None:
        """Take connections again, on the same port."""
        self._run(self._listen())

    def lead_to(self, host: str, port: int) -> None:
        """New connections go elsewhere; those that are open are reset."""
        self._do(lambda: setattr(self, "_far", (host, port)))
        self.reset()

    # Life.

    def open(self) -> None:
        self._thread.start()
        self._run(self._begin())

    def close(self) -> None:
        self._run(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, step: Callable[[], T]) -> T:
        async def once() -> T:
            return step()

        return self._run(once())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_VERB_SECONDS)

    # On the proxy's own loop.

    async def _begin(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            for sock in self._server.sockets:
                self._loop.remove_reader(sock.fileno())
            # Whoever was accepted just now comes in first: asyncio would lose the connection, and leave it open.
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
            self._server = None
        await self._end(hard=False)

    async def _end(self, *, hard: bool) -> None:
        for writer in list(self._writers):
            _close(writer, hard=hard)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        self._tasks.add(task)
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._far)
            self._writers.add(far)
            await asyncio.gather(self._pump(reader, far), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            # Ended by a verb, or by one of the two ends: the other one hears of it.
            pass
        finally:
            self._tasks.discard(task)
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    _close(end, hard=False)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From one end to the other, until the first one ends: its end is passed on, too."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        passing = loop.create_task(self._pass(pieces, writer))
        try:
            while data := await reader.read(_CHUNK_BYTES):
                pieces.put_nowait((loop.time(), data))
                await self._flowing.wait()
            pieces.put_nowait((loop.time(), b""))
            await passing
        finally:
            passing.cancel()

    async def _pass(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            came, data = await pieces.get()
            await asyncio.sleep(came + self._delay_seconds - loop.time())
            await self._flowing.wait()
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            await self._write(writer, data)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            limit = self._bytes_per_second
            size = len(data) if limit is None else max(1, int(limit * _TICK_SECONDS))
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]
            if limit is not None:
                await asyncio.sleep(size / limit)


def _close(writer: asyncio.StreamWriter, *, hard: bool) -> None:
    if hard:
        # A socket that lingers for no time is closed with RST.
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD_CLOSE)
        writer.transport.abort()
        return
    writer.close()


@contextmanager
def to(host: str, port: int) -> Iterator[Proxy]:
    """A proxy to `host`:`port` for the length of the block."""
    line = Proxy(host, port)
    line.open()
    try:
        yield line
    finally:
        line.close()
