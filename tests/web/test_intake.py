"""How slow a request's body may be, and that the connection ends where it is slower."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RequestTimeout
from app.telemetry import Metrics
from app.web import problems
from app.web.bridge import AsyncFlask
from app.web.entrance.entry import Entry
from app.web.entrance.intake import Intake, Pace
from app.web.entrance.shedding import Gate
from tests.web.harness import chunk, serving
from tests.web.test_server import port_of

# Nothing of it may come slowly; enough for whatever is at hand.
STRICT = Pace(grace_seconds=0.2, bytes_per_second=1_000_000)


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_patience_grows_with_what_has_come(received: int, rate: int) -> None:
    pace = Pace(grace_seconds=5, bytes_per_second=rate)
    assert pace.patience_seconds(0) == 5
    assert pace.patience_seconds(received) == pytest.approx(5 + received / rate)


async def test_who_sends_nothing_more_is_given_up_and_stays_given_up() -> None:
    gate = Gate()
    slot = gate.enter("normal", 0.0)
    assert slot is not None
    asked = 0

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.Event().wait()
        return chunk(b"x")

    intake = Intake(receive, slot, Pace(grace_seconds=0.02, bytes_per_second=10**9))
    assert (await intake())["body"] == b"x"
    for _ in range(2):
        with pytest.raises(RequestTimeout):
            await intake()
    assert asked == 2
    assert gate.in_flight == 1


async def test_once_the_body_is_complete_the_news_of_a_disconnect_may_take_for_ever() -> None:
    gate = Gate()
    slot = gate.enter("normal", 0.0)
    assert slot is not None
    left = asyncio.Event()
    messages = iter([chunk(b"all", more=False)])

    async def receive() -> Any:
        for message in messages:
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    intake = Intake(receive, slot, Pace(grace_seconds=0.01, bytes_per_second=10**9))
    await intake()
    waiting = asyncio.create_task(intake())
    await asyncio.sleep(0.05)  # longer than the pace would allow
    assert not waiting.done()
    assert gate.in_flight == 1, "nobody waits for the client any more, but for us"
    left.set()
    assert (await waiting)["type"] == "http.disconnect"


def application(pace: Pace = STRICT) -> Any:
    app = AsyncFlask("tests.web.intake")
    problems.install(app)

    @app.post("/async")
    async def read_async() -> str:
        from flask import request

        return str(len(request.get_data()))

    @app.post("/plain")
    def read_plain() -> str:
        from flask import request

        return str(len(request.get_data()))

    @app.post("/ignored")
    async def ignore() -> str:
        await asyncio.sleep(0.4)
        return "not read"

    entry = Entry(app.asgi_app, metrics=Metrics(service="tests"), max_seconds=10, pace=pace)

    async def outermost(scope: Any, receive: Any, send: Any) -> None:
        await entry(scope, receive, send)

    return outermost


@pytest.mark.parametrize("path", ["/async", "/plain"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_drips_is_a_408_and_the_connection_ends(path: str, framing: str) -> None:
    async with serving(application()) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
        dripping = asyncio.create_task(_drip(writer, b"1\r\nx\r\n" if "chunked" in framing else b"x"))
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
        dripping.cancel()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
        assert b'"code":"request_timeout"' in answer
        writer.close()


@pytest.mark.parametrize("path", ["/async", "/plain"])
async def test_a_body_that_comes_in_pieces_but_quickly_is_read(path: str) -> None:
    # Quickly, as a busy machine goes.
    async with serving(application(Pace(grace_seconds=5.0, bytes_per_second=1_000_000))) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n".encode())
        for _ in range(3):
            writer.write(b"x" * 100_000)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert (await reader.readuntil(b"300000")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_view_that_does_not_want_the_body_is_not_disturbed_by_its_slowness() -> None:
    async with serving(application()) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(b"POST /ignored HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        assert (await reader.readuntil(b"not read")).startswith(b"HTTP/1.1 200")
        writer.close()


async def _drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        await asyncio.sleep(0.05)
        writer.write(piece)
