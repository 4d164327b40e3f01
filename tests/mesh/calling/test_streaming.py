"""Replies and bodies that come piece by piece."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.errors import BodyTooLarge, DeadlineExceeded, PeerUnreachable
from tests.mesh.actors import Witness, http_peer, raw_peer, refused_url, until
from tests.mesh.calling.scenes import (
    Announce,
    Open,
    answer,
    collect,
    cut,
    hello,
    outcomes,
    serving,
    unavailable,
)


async def test_a_stream_keeps_order_duplicates_and_encoding_of_headers_and_body(
    announce: Announce, open_caller: Open
) -> None:
    packed = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-B: 2\r\nset-cookie: c=3\r\ncontent-encoding: gzip\r\n"
    async with raw_peer(answer(head + b"content-length: %d\r\n\r\n" % len(packed) + packed)) as url:
        announce(url)
        async with open_caller(max_reply_bytes=1) as mesh:
            async with mesh.stream("GET", "users", "/") as reply:
                assert mesh.balancer.in_flight == 1
                assert reply.headers[:3] == [(b"Set-Cookie", b"a=1"), (b"X-B", b"2"), (b"set-cookie", b"c=3")]
                assert b"".join([chunk async for chunk in reply.chunks()]) == packed
                assert (reply.status, reply.instance) == (200, "users-1")
            assert mesh.balancer.in_flight == 0


async def test_a_streamed_request_arrives_with_its_duplicates_and_its_own_path(
    announce: Announce, open_caller: Open
) -> None:
    received: list[tuple[str, list[str], bytes]] = []

    async def listen(request: web.BaseRequest) -> web.Response:
        assert request.headers.getall("x-mesh-caller") == ["orders"]
        assert request.headers.getall("x-mesh-target") == ["users-1"]
        assert len(request.headers.getall("x-request-timeout-ms")) == 1
        received.append((request.raw_path, request.headers.getall("x-a"), await request.read()))
        return web.Response()

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"abc", b"", b"def"):
            yield piece

    async with http_peer(listen) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            forged = [("X-Mesh-Caller", "evil"), ("x-request-timeout-ms", "1"), ("x-mesh-target", "evil")]
            for more in ([], [("content-length", "6")]):
                headers = [("X-A", "1"), ("x-a", "2"), ("x-request-id", "outer"), *more, *forged]
                async with mesh.stream(
                    "POST", "users", "/a%2Fb/../%7e?q=%20+", headers=headers, content=body()
                ) as reply:
                    assert reply.status == 200
            with serving():
                headers = [("X-A", "1"), ("x-a", "2"), ("x-request-id", "outer")]
                async with mesh.stream("POST", "users", "/", headers=headers, content=b"bytes"):
                    pass
    assert received[0][0] == "/a%2Fb/../%7e?q=%20+"
    assert [values for _, values, _ in received] == [["1", "2"]] * 3
    assert [path_headers[2]["x-request-id"] for path_headers in peer.requests] == ["outer", "outer", "abc"]
    assert [("transfer-encoding" in r[2], r[2].get("content-length"), r[3]) for r in peer.requests[:2]] == [
        (True, None, b"abcdef"),
        (False, "6", b"abcdef"),
    ]


async def test_a_reply_that_comes_slowly_is_handed_on_as_it_comes(announce: Announce, open_caller: Open) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"second")
        return response

    async with http_peer(slow) as peer:
        announce(peer.url)
        async with open_caller() as mesh, mesh.stream("GET", "users", "/") as reply:
            chunks = reply.chunks()
            assert await anext(chunks) == b"first"
            go_on.set()
            assert await anext(chunks) == b"second"


async def test_a_stream_may_last_longer_than_its_timeout_but_not_stand_still_for_as_long(
    announce: Announce, open_caller: Open
) -> None:
    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(6):
            await response.write(b".")
            await asyncio.sleep(0.2)
        await asyncio.Event().wait()
        return response

    async with http_peer(drip) as peer:
        announce(peer.url)
        got = bytearray()
        async with open_caller() as mesh:
            with pytest.raises(DeadlineExceeded):
                await collect(mesh, got, timeout=0.8)
            assert mesh.balancer.in_flight == 0
            await until(lambda: peer.waiting == 0)
    assert got == b"......"


async def test_a_stream_that_breaks_off_says_so(announce: Announce, open_caller: Open) -> None:
    async with raw_peer(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")) as url:
        announce(url)
        async with open_caller() as mesh:
            got = bytearray()
            with pytest.raises(PeerUnreachable):
                await collect(mesh, got)
    assert got == b"abc"


async def test_leaving_a_stream_early_ends_it_at_the_peer_and_harms_nobody(
    announce: Announce, open_caller: Open
) -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/short":
            return web.Response(text="short")
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    async with http_peer(endless) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            async with mesh.stream("GET", "users", "/") as reply:
                await anext(reply.chunks())
            await until(lambda: peer.waiting == 0)
            assert (await mesh.get("users", "/short")).body == b"short"
            assert mesh.balancer.in_flight == 0


async def test_what_the_source_of_a_body_fails_with_is_what_the_caller_hears(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        raise BodyTooLarge

    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with pytest.raises(BodyTooLarge):
                async with mesh.stream("PUT", "users", "/", content=body()):
                    pass
            assert mesh.balancer.in_flight == 0
            # Not the peer's fault: it is not held against it, and nothing was tried again.
            (peer_of_users,) = mesh.balancer.explain("users")
            assert peer_of_users.state == "ok, not asked yet"
    assert witness.attempts == []


async def test_a_streamed_body_is_taken_to_another_peer_as_long_as_it_was_not_begun(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    async with http_peer(hello) as peer:
        announce(await refused_url(), "dead")
        announce(peer.url, "alive")
        async with open_caller() as mesh:
            while all(attempt.instance != "dead" for attempt in witness.attempts):
                async with mesh.stream("POST", "users", "/", content=body()) as reply:
                    assert reply.status == 200
    assert {body for _, _, _, body in peer.requests} == {b"abc"}


async def test_a_streamed_body_that_was_begun_is_not_sent_twice(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    async with raw_peer(cut) as url:
        announce(url)
        async with open_caller() as mesh:
            with pytest.raises(PeerUnreachable):
                async with mesh.stream("PUT", "users", "/", content=body()):
                    pass
    assert len(witness.attempts) == 1


async def test_a_streamed_503_is_taken_to_another_peer(announce: Announce, open_caller: Open, witness: Witness) -> None:
    async with http_peer(unavailable) as one, http_peer(unavailable) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller() as mesh:
            async with mesh.stream("GET", "users", "/") as reply:
                assert reply.status == 503
                assert mesh.balancer.in_flight == 1
            assert mesh.balancer.in_flight == 0
    assert outcomes(witness) == [(1, 503, ""), (2, 503, "")]
