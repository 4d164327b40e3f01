"""The short way and Hypercorn's own give the same conversation, byte for byte; and most requests go the short one."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypercorn.protocol.h11 import H11Protocol

from app.web.serving import plain
from tests.web.harness import serving
from tests.web.test_server import port_of

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the request as it came to it; some paths have ways of their own."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/fails":
        raise RuntimeError("before the answer")
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    told = {key: scope[key] for key in sorted(scope) if key not in ("client", "server", "state")}
    content = repr((told, body)).encode()
    for message in ANSWERS.get(scope["path"], whole)(content):
        await send(message)


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def whole(content: bytes) -> list[dict[str, Any]]:
    return [start((b"content-length", b"%d" % len(content))), part(content)]


ANSWERS: dict[str, Callable[[bytes], list[dict[str, Any]]]] = {
    "/no-length": lambda content: [start(), part(content, more=True), part(b"", more=True), part(b"end")],
    "/pieces": lambda content: [start((b"content-length", b"4")), part(b"ab", more=True), part(b"cd", more=True), part(b"")],
    "/closes": lambda content: [start((b"content-length", b"2"), (b"connection", b"close")), part(b"ok")],
    "/no-content": lambda content: [start(status=204), part(b"")],
    "/too-much": lambda content: [start((b"content-length", b"2")), part(b"abc")],
    "/too-little": lambda content: [start((b"content-length", b"4")), part(b"abc")],
    "/injected": lambda content: [start((b"content-length", b"2"), (b"x", b"a\r\nevil: yes")), part(b"ok")],
    "/twice": lambda content: [*whole(content), *whole(content)],
    "/nothing": lambda content: [],
    "/body-first": lambda content: [part(b"ok"), *whole(content)],
}  # fmt: skip


async def conversation(*pieces: bytes) -> bytes:
    """All that a fresh server says to `pieces`, each sent once the one before has had an answer or a moment."""
    async with serving(application) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        heard = b""
        for piece in pieces:
            writer.write(piece)
            try:
                async with asyncio.timeout(0.1):
                    heard += await reader.read(65536)
            except TimeoutError:
                pass
        with suppress(OSError):  # the server has ended the connection already
            writer.write_eof()
        async with asyncio.timeout(5):
            heard += await reader.read()
        writer.close()
    return re.sub(rb"date: [^\r]*", b"date: now", heard)


@pytest.mark.parametrize(
    "pieces",
    [
        *([GET % path.encode(), GET % b"/"] for path in ["/", "/a%20b/%C3%A9?q=%20", *ANSWERS, "/fails"]),
        [POST % (2, b"{}"), GET % b"/"],
        [POST % (0, b""), LAST],
        [POST % (4, b"ab"), b"cd", GET % b"/"],
        [GET % b"/", LAST, GET % b"/"],
        [GET % b"/1" + GET % b"/2" + GET % b"/3", GET % b"/4"],
        [GET % b"/1" + b"GET /2 HT", b"TP/1.1\r\nHost: x\r\n\r\n", GET % b"/3"],
        [b"GET / HT", b"TP/1.1\r\nHost: x\r\n\r\n", GET % b"/"],
        [GET % b"/", b"nonsense\r\n\r\n", GET % b"/"],
        [GET % b"/", b"GET / HTTP/1.1\r\n\r\n"],
        [GET % b"/", b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", GET % b"/"],
        [b"GET / HTTP/1.0\r\n\r\n"],
        [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", b"ab", GET % b"/"],
        [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: x\r\n\r\n", GET % b"/"],
        [GET % b"/", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000, b"y\r\n\r\n"],
        [GET % b"/", b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"],
    ],
    ids=lambda pieces: b" | ".join(piece[:40] for piece in pieces).decode("latin-1"),
)
async def test_the_short_way_says_what_hypercorn_says(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    short = await conversation(*pieces)
    monkeypatch.setattr(plain, "read", lambda data: None)
    assert short == await conversation(*pieces)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many requests went the long way."""
    counted: Counter[str] = Counter()
    create = H11Protocol._create_stream

    async def counting(self: H11Protocol, request: Any) -> None:
        counted["long"] += 1
        await create(self, request)

    monkeypatch.setattr(H11Protocol, "_create_stream", counting)
    return counted


async def test_only_what_is_not_plain_takes_the_long_way(streams: Counter[str]) -> None:
    await conversation(GET % b"/", POST % (2, b"{}"), GET % b"/pieces")
    assert not streams
    await conversation(GET % b"/1" + GET % b"/2", GET % b"/3", LAST)
    assert streams["long"] == 3, "two at once, and the one that ends the connection"


async def test_a_request_that_comes_before_the_answer_waits_for_it() -> None:
    may_answer, asked = asyncio.Event(), 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        if scope["type"] == "http":
            asked += 1
            await may_answer.wait()
        await application(scope, receive, send)

    async with serving(slow) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(GET % b"/1")
        while not asked:
            await asyncio.sleep(0.001)
        writer.write(GET % b"/2")
        await asyncio.sleep(0.02)
        assert asked == 1
        may_answer.set()
        heard = b""
        while b"/2" not in heard:
            heard += await reader.read(65536)
        assert heard.index(b"'/1'") < heard.index(b"'/2'")
        writer.close()


async def test_who_leaves_before_the_answer_is_told_of() -> None:
    left = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await application(scope, receive, send)
            return
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive() == {"type": "http.disconnect"}
        left.set()

    async with serving(waiting) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(client))
        writer.write(GET % b"/")
        writer.close()
        async with asyncio.timeout(5):
            await left.wait()
