from __future__ import annotations

import asyncio
from typing import Any

import pytest
from werkzeug.exceptions import ClientDisconnected

from app.errors import BodyTooLarge
from app.gateway.upload import SMALL_BYTES, Upload
from app.web.bridge.inbox import Inbox

LIMIT = 4 * SMALL_BYTES


class Sender:
    """The client's side of one request's body."""

    def __init__(self, *chunks: bytes, declared: int | None = None, has_body: bool = True) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.taken = asyncio.Event()
        for chunk in chunks:
            self.send(chunk)
        inbox = Inbox(self.receive, has_body=has_body)
        self.upload = Upload(inbox, declared=declared, limit=LIMIT)

    async def receive(self) -> dict[str, Any]:
        message = await self.messages.get()
        if self.messages.empty():
            self.taken.set()
        return message

    def send(self, chunk: bytes) -> None:
        self.messages.put_nowait({"type": "http.request", "body": chunk, "more_body": True})

    def end(self) -> Sender:
        self.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        return self

    def leave(self) -> Sender:
        self.messages.put_nowait({"type": "http.disconnect"})
        return self


async def test_no_body_is_no_content_and_nothing_is_waited_for() -> None:
    assert await Sender(has_body=False).upload.open() == b""


async def test_a_small_body_of_known_length_is_taken_whole() -> None:
    sender = Sender(b"ab", b"cd", declared=4).end()
    assert await sender.upload.open() == b"abcd"


async def test_a_small_body_of_known_length_is_waited_for() -> None:
    sender = Sender(b"ab", declared=4)
    opening = asyncio.ensure_future(sender.upload.open())
    await sender.taken.wait()
    sender.send(b"cd")
    sender.end()
    assert await opening == b"abcd"


async def test_a_small_body_of_unknown_length_is_taken_whole_if_it_is_all_there() -> None:
    assert await Sender(b"ab", b"cd").end().upload.open() == b"abcd"


async def test_a_body_of_unknown_length_that_dawdles_is_a_stream_with_nothing_lost() -> None:
    sender = Sender(b"ab", b"cd")
    content = await sender.upload.open()
    assert not isinstance(content, bytes)
    assert [await anext(content), await anext(content)] == [b"ab", b"cd"]
    sender.send(b"ef")
    assert await anext(content) == b"ef"
    sender.end()
    assert [chunk async for chunk in content] == []


@pytest.mark.parametrize("declared", [None, SMALL_BYTES + 1])
async def test_a_larger_body_is_a_stream_with_nothing_lost(declared: int | None) -> None:
    chunks = [b"x" * (SMALL_BYTES // 2), b"y" * (SMALL_BYTES // 2), b"z"]
    content = await Sender(*chunks, declared=declared).end().upload.open()
    assert not isinstance(content, bytes)
    assert b"".join([chunk async for chunk in content]) == b"".join(chunks)


async def test_a_stream_holds_no_more_than_it_must() -> None:
    sender = Sender(*[b"x" * SMALL_BYTES] * 4, declared=4 * SMALL_BYTES)
    content = await sender.upload.open()
    assert sender.messages.qsize() == 4
    assert not isinstance(content, bytes)
    await anext(content)
    assert sender.messages.qsize() == 3


async def test_a_body_that_announces_too_much_is_refused_unread() -> None:
    sender = Sender(b"x", declared=LIMIT + 1)
    with pytest.raises(BodyTooLarge):
        await sender.upload.open()
    assert sender.messages.qsize() == 1


async def test_a_body_that_grows_too_large_is_cut_off() -> None:
    sender = Sender(*[b"x" * SMALL_BYTES] * 5).end()
    content = await sender.upload.open()
    assert not isinstance(content, bytes)
    for _ in range(4):
        await anext(content)
    with pytest.raises(BodyTooLarge):
        await anext(content)


@pytest.mark.parametrize("declared", [None, 10])
async def test_a_client_that_leaves_while_its_small_body_is_awaited_is_noticed(declared: int | None) -> None:
    with pytest.raises(ClientDisconnected):
        await Sender(b"ab", declared=declared).leave().upload.open()


async def test_closing_leaves_no_receiver_behind() -> None:
    sender = Sender(b"ab")
    await sender.upload.open()
    sender.upload.close()
    sender.send(b"cd")
    await asyncio.sleep(0)
    assert sender.messages.qsize() == 1


async def test_closing_after_a_client_has_left_says_nothing() -> None:
    sender = Sender(b"ab")
    await sender.upload.open()
    sender.taken.clear()
    sender.leave()
    await sender.taken.wait()
    await asyncio.sleep(0)
    sender.upload.close()
