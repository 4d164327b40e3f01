"""The load generator, against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from app.errors import BadInput
from app.lab.load import Burst, ClosedLoop, Load, OpenLoop, Tally, Target

PATIENCE_SECONDS = 20.0


@dataclass
class Served:
    """What a server saw."""

    target: Target
    requests: int = 0
    connections: set[object] = field(default_factory=set)
    in_flight: int = 0
    most_in_flight: int = 0


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Served]:
    served = Served(Target("127.0.0.1", 0))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        served.requests += 1
        served.connections.add(request.transport)
        served.in_flight += 1
        served.most_in_flight = max(served.most_in_flight, served.in_flight)
        try:
            return await answer(request)
        finally:
            served.in_flight -= 1

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.target = Target("127.0.0.1", runner.addresses[0][1], "/x?y=1")
        yield served
    finally:
        await runner.cleanup()


async def until(load: Load, condition: Callable[[Tally], object]) -> Tally:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition(load.tally()):
            await asyncio.sleep(0.005)
    return load.tally()


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


async def test_every_answer_is_counted_with_its_status_and_its_size() -> None:
    async with serving(hello) as served:
        async with ClosedLoop(served.target, connections=4) as load:
            tally = await until(load, lambda tally: tally.answered >= 200)
        assert tally.statuses == {200: tally.answered}
        assert tally.body_bytes == 5 * tally.answered
        assert len(tally.latencies) == tally.answered
        assert tally.failed == 0
        # What was in flight at the end is no answer.
        assert tally.answered <= served.requests <= tally.answered + 4 * 60


async def test_connections_are_kept_and_each_has_one_request_in_flight() -> None:
    async with serving(hello) as served:
        async with ClosedLoop(served.target, connections=3) as load:
            await until(load, lambda tally: tally.answered >= 100)
        assert len(served.connections) == 3
        assert served.most_in_flight <= 3


async def test_the_request_arrives_as_it_was_given() -> None:
    seen: list[tuple[str, str, str | None, bytes]] = []

    async def remember(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.method, request.path_qs, request.headers.get("X-A"), await request.read()))
        return web.Response(status=201)

    async with serving(remember) as served:
        target = replace(served.target, method="POST", headers=(("X-A", "b"),), body=b"body")
        async with ClosedLoop(target, connections=1) as load:
            tally = await until(load, lambda tally: tally.answered >= 2)
        assert set(seen) == {("POST", "/x?y=1", "b", b"body")}
        assert set(tally.statuses) == {201}


async def test_statuses_are_told_apart_and_refusals_are_failures() -> None:
    statuses = (200, 302, 404, 500)
    turns = iter(range(10**9))

    async def one_after_the_other(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=statuses[next(turns) % 4])

    async with serving(one_after_the_other) as served:
        async with ClosedLoop(served.target, connections=1) as load:
            tally = await until(load, lambda tally: tally.answered >= 40)
        assert set(tally.statuses) == set(statuses)
        assert tally.failed == tally.statuses[404] + tally.statuses[500]


async def test_chunked_bodies_are_read_to_their_end() -> None:
    async def in_pieces(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in (b"one", b"three", b"0\r\n\r\n"):
            await response.write(piece)
        await response.write_eof()
        return response

    async with serving(in_pieces) as served:
        async with ClosedLoop(served.target, connections=2) as load:
            tally = await until(load, lambda tally: tally.answered >= 50)
        assert tally.body_bytes == tally.answered * 13
        assert tally.failed == 0
        assert len(served.connections) == 2


async def test_a_reset_connection_is_an_error_and_another_takes_its_place() -> None:
    turns = iter(range(10**9))

    async def reset_every_third(request: web.BaseRequest) -> web.StreamResponse:
        if next(turns) % 3 == 2 and request.transport is not None:
            request.transport.abort()
        return web.Response(text="hello")

    async with serving(reset_every_third) as served, ClosedLoop(served.target, connections=2) as load:
        tally = await until(load, lambda tally: tally.answered >= 6 and tally.failed >= 3)
    assert set(tally.errors) <= {"reset", "closed"}
    assert tally.failed == sum(tally.errors.values())


async def test_a_server_that_closes_after_each_answer_is_no_error() -> None:
    async def last_one(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(text="hello")
        response.force_close()
        return response

    async with serving(last_one) as served:
        async with ClosedLoop(served.target, connections=2) as load:
            tally = await until(load, lambda tally: tally.answered >= 20)
        assert tally.errors == {}
        assert len(served.connections) >= 20


async def test_what_is_not_http_is_an_error() -> None:
    async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"220 mail ready\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk_nonsense, "127.0.0.1", 0)
    async with server, ClosedLoop(Target("127.0.0.1", server.sockets[0].getsockname()[1]), connections=1) as load:
        tally = await until(load, lambda tally: tally.failed >= 2)
    assert set(tally.errors) == {"broken"}


async def test_nobody_there_is_an_error() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with ClosedLoop(Target("127.0.0.1", port), connections=2) as load:
        tally = await until(load, lambda tally: tally.failed >= 4)
    assert set(tally.errors) == {"refused"}
    assert tally.answered == 0


async def test_an_answer_that_does_not_come_is_an_error_in_time() -> None:
    async def never(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    async with serving(never) as served, ClosedLoop(served.target, connections=2, timeout_seconds=0.05) as load:
        tally = await until(load, lambda tally: tally.failed >= 2)
    assert set(tally.errors) == {"timeout"}


async def test_counting_starts_anew() -> None:
    async with serving(hello) as served, ClosedLoop(served.target, connections=1) as load:
        before = await until(load, lambda tally: tally.answered >= 50)
        load.restart_counting()
        assert load.tally().answered < before.answered
        assert load.tally().seconds < before.seconds


async def test_an_open_loop_sends_at_its_rate_and_counts_waiting_as_latency() -> None:
    gate = asyncio.Event()

    async def when_open(request: web.BaseRequest) -> web.StreamResponse:
        await gate.wait()
        return web.Response(text="hello")

    async with serving(when_open) as served, OpenLoop(served.target, per_second=500, connections=2) as load:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while load.waiting < 20:
                await asyncio.sleep(0.005)
        assert served.most_in_flight == 2
        opened = time.perf_counter()
        gate.set()
        tally = await until(load, lambda tally: tally.answered >= 22)
    waited = max(tally.latencies)
    assert waited >= 20 / 500 * 0.9
    assert tally.answered <= 500 * (time.perf_counter() - opened + waited) + 22


async def test_a_burst_is_in_flight_all_at_once() -> None:
    everybody = asyncio.Barrier(50)

    async def when_all_are_here(request: web.BaseRequest) -> web.StreamResponse:
        await everybody.wait()
        return web.Response(text="hello")

    async with serving(when_all_are_here) as served:
        async with Burst(served.target, requests=50) as load:
            tally = await load.fire()
        assert tally.statuses == {200: 50}
        assert served.requests == 50


async def test_a_burst_ends_even_when_connections_are_lost() -> None:
    async def reset(request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async with serving(reset) as served, Burst(served.target, requests=20) as load:
        tally = await load.fire()
    assert tally.answered == 0
    assert tally.failed == 20


def test_only_plain_http_is_spoken() -> None:
    assert Target.of("http://127.0.0.1:80/a?b=c").path == "/a?b=c"
    assert Target.of("http://[::1]:81").wire().startswith(b"GET / HTTP/1.1\r\nHost: [::1]:81\r\n")
    with pytest.raises(BadInput):
        Target.of("https://127.0.0.1/")
