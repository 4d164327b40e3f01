"""Hypercorn under our own server: writes, keep-alive, backpressure, HTTP/2."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import h2.config
import h2.connection
import h2.events
import pytest

from app.web.bridge import AsyncFlask
from app.web.serving import lines, server
from tests.web.harness import nothing, serving

# More than the buffers of two sockets hold.
MOST_BYTES = 64 * 1024 * 1024


def application() -> AsyncFlask:
    app = AsyncFlask("tests.web.server")

    @app.get("/")
    async def view() -> dict[str, str]:
        return {"hello": "there"}

    return app


def port_of(client: aiohttp.ClientSession) -> int:
    assert client._base_url is not None
    assert client._base_url.port is not None
    return client._base_url.port


async def test_the_head_and_the_body_of_an_answer_leave_in_one_write() -> None:
    async with serving(application().asgi_app) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        for _ in range(20):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.read(65536)
            assert answer.endswith(b'{"hello":"there"}'), "read in one piece"
        writer.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    app = application()

    @app.get("/<int:number>")
    async def echo(number: int) -> str:
        await asyncio.sleep(0.001 * (5 - number))
        return f"<{number}>"

    async with serving(app.asgi_app) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(5)))
        received = b""
        while received.count(b">") < 5:
            received += await reader.read(65536)
        assert [received.index(b"<%d>" % number) for number in range(5)] == sorted(
            received.index(b"<%d>" % number) for number in range(5)
        )
        writer.close()


async def test_a_client_that_does_not_read_holds_the_stream_up() -> None:
    app, made = application(), 0
    stalled = asyncio.Event()

    @app.get("/endless")
    async def endless() -> Any:
        async def body() -> AsyncIterator[bytes]:
            nonlocal made
            while True:
                made += 1
                turn.set()
                yield b"x" * 16_000

        return body()

    turn = asyncio.Event()

    async def watch() -> None:
        """Stalled: no chunk was asked for while the loop turned for a good while."""
        while made * 16_000 < MOST_BYTES:
            turn.clear()
            try:
                await asyncio.wait_for(turn.wait(), 0.2)
            except TimeoutError:
                stalled.set()
                return

    async with serving(app.asgi_app) as client:
        sock = socket.create_connection(("127.0.0.1", port_of(client)))
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(watch(), 30)
        assert stalled.is_set(), f"{made * 16_000} bytes were made for a client that reads nothing"
        sock.close()


async def test_idle_connections_are_closed_when_the_server_ends() -> None:
    async with serving(application().asgi_app) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.read(65536)
    assert await reader.read() == b""
    writer.close()


async def test_nonsense_is_a_400_and_the_server_goes_on() -> None:
    async with serving(application().asgi_app) as client:
        for nonsense in (b"\x16\x03\x01 not HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
            writer.write(nonsense)
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 400")
            writer.close()
        async with client.get("/") as reply:
            assert reply.status == 200


async def test_http2_is_served_too() -> None:
    async with serving(application().asgi_app) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        for stream in (1, 3):
            head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "example.com")]
            connection.send_headers(stream, head, end_stream=True)
        writer.write(connection.data_to_send())
        bodies: dict[int, bytes] = {}
        ended: set[int] = set()
        while ended != {1, 3}:
            for event in connection.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                elif isinstance(event, h2.events.StreamEnded):
                    ended.add(event.stream_id)
        assert bodies == {1: b'{"hello":"there"}', 3: b'{"hello":"there"}'}
        writer.close()


def test_a_listening_socket_takes_connections_before_anything_serves() -> None:
    sock = server.listen("127.0.0.1", 0)
    with sock, socket.create_connection(sock.getsockname(), timeout=5):
        pass


async def test_a_head_that_drips_is_a_408_and_a_quick_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_SWEEP_SECONDS", 0.05)
    async with serving(application().asgi_app, head_seconds=0.2) as client:
        slow_reader, slow = await asyncio.open_connection("127.0.0.1", port_of(client))
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        slow.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        quiet = await Http2.open(port_of(client))
        dripping = asyncio.create_task(drip(slow))
        rest = asyncio.create_task(slow_reader.readuntil(b"\r\n\r\n"))
        while not rest.done():
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.01)
        dripping.cancel()
        assert rest.result().startswith(b"HTTP/1.1 408")
        await asyncio.sleep(0.4)  # longer than a head may take, and a sweep
        assert await quiet.get() == 200, "what HTTP/2 says in the beginning is not the head of a request"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200"), "an idle connection has no head to be late"
        for each in (slow, writer):
            each.close()


class Http2:
    """A client of one connection and one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))

    @classmethod
    async def open(cls, port: int) -> Http2:
        opened = cls(*await asyncio.open_connection("127.0.0.1", port))
        opened._connection.initiate_connection()
        opened._writer.write(opened._connection.data_to_send())
        opened._connection.receive_data(await opened._reader.read(65536))
        opened._writer.write(opened._connection.data_to_send())
        return opened

    async def get(self) -> int:
        """The status of ``GET /``; 0 if the connection is closed."""
        head = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "example.com")]
        self._connection.send_headers(1, head, end_stream=True)
        self._writer.write(self._connection.data_to_send())
        while data := await self._reader.read(65536):
            for event in self._connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self._writer.close()
                    return int(dict(event.headers or [])[b":status"])
        return 0


async def drip(writer: asyncio.StreamWriter) -> None:
    for number in itertools.count():
        await asyncio.sleep(0.02)
        writer.write(b"X-%d: y\r\n" % number)


async def test_a_request_that_comes_on_an_idle_connection_just_when_the_server_stops_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ten times what the ten requests take on a quiet machine.
    monkeypatch.setattr(lines, "IDLE_GRACE_SECONDS", 2.5)
    stop, stopping = asyncio.Event(), asyncio.Event()
    sock = server.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]

    async def on_stop() -> None:
        stopping.set()

    serve = server.serve(application().asgi_app, sock, stop=stop, drain_seconds=20.0, on_stop=on_stop)
    task = asyncio.create_task(serve)
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
    for reader, writer in connections:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"}")
    stop.set()
    await stopping.wait()
    for reader, writer in connections[:10]:
        await asyncio.sleep(0.02)  # spread over the beginning of the drain
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    await task
    for reader, writer in connections:
        assert await reader.read() == b"", "the idle ones are closed, and nothing waits for the end of the drain"
        writer.close()


async def test_a_drain_ends_with_its_time_whoever_is_still_busy() -> None:
    app, begun, cancelled = application(), asyncio.Event(), asyncio.Event()

    @app.get("/for-ever")
    async def for_ever() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    stop, sock = asyncio.Event(), server.listen("127.0.0.1", 0)
    task = asyncio.create_task(server.serve(app.asgi_app, sock, stop=stop, drain_seconds=0.3, on_stop=nothing))
    _, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
    writer.write(b"GET /for-ever HTTP/1.1\r\nHost: x\r\n\r\n")
    await begun.wait()
    stop.set()
    await asyncio.wait_for(task, 10)
    assert cancelled.is_set()
    writer.close()
