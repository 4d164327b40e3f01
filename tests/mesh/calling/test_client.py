"""Whole calls: a real registry, real HTTP servers, real sockets that are refused, cut and left hanging."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import pytest
from aiohttp import web

from app import context
from app.context import Context
from app.errors import BadInput, BadReply, BodyTooLarge, DeadlineExceeded, Misconfigured, NoInstance, PeerUnreachable
from app.mesh import Mesh
from app.mesh.calling.transport import decoded
from app.mesh.registry.operations import BlockingRegistry
from app.settings import Settings
from tests.mesh.actors import Witness, beat, fast_settings, http_peer, instance, mesh_of, raw_peer, refused_url, until

Announce = Callable[..., None]
Open = Callable[..., AbstractAsyncContextManager[Mesh]]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def announce(registry: BlockingRegistry, settings: Settings) -> Announce:
    """Somebody at `url` is a ready instance of users."""

    def one(url: str, id_: str = "users-1", **changes: Any) -> None:
        beat(registry, settings, instance(id=id_, url=url, **changes))

    return one


@pytest.fixture
def open_caller(settings: Settings, redis_url: str, witness: Witness) -> Open:
    def opened(**client: Any) -> AbstractAsyncContextManager[Mesh]:
        own = fast_settings(settings.registry.namespace, client=client)
        return mesh_of(own, redis_url, "orders", observer=witness)

    return opened


async def hello(request: web.BaseRequest) -> web.Response:
    return web.json_response({"path": request.path_qs})


async def unavailable(request: web.BaseRequest) -> web.Response:
    return web.json_response({}, status=503, headers={"Retry-After": "7"})


async def forever(request: web.BaseRequest) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def answer(raw: bytes, *, close: bool = True) -> Callable[..., Awaitable[None]]:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if close:
            writer.close()

    return send


async def collect(mesh: Mesh, into: bytearray, **options: Any) -> None:
    async with mesh.stream("GET", "users", "/", **options) as reply:
        async for chunk in reply.chunks():
            into += chunk


@contextmanager
def serving(**facts: Any) -> Iterator[None]:
    """Within a request of somebody's."""
    with context.activate(Context(**({"request_id": "abc"} | facts))):
        yield


def outcomes(witness: Witness) -> list[tuple[int, int, str]]:
    return [(attempt.number, attempt.status, attempt.error) for attempt in witness.attempts]


# ------------------------------------------------------------------------------------------ a call


async def test_a_call_reaches_the_service_and_its_reply_the_caller(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            reply = await mesh.get("users", "/users/7?x=%20ä", headers={"X-Own": "1"})
            assert (reply.status, reply.ok, reply.json()) == (200, True, {"path": "/users/7?x=%20%C3%A4"})
            assert reply.headers["content-type"] == "application/json; charset=utf-8"
    ((method, path, headers, body),) = peer.requests
    assert (method, path, body) == ("GET", "/users/7?x=%20%C3%A4", b"")
    assert (headers["x-own"], headers["x-mesh-caller"], headers["x-mesh-attempt"]) == ("1", "orders", "1")
    assert len(headers["x-request-id"]) == 24
    assert not headers.keys() & {"user-agent", "accept", "accept-encoding", "cookie"}
    (attempt,) = witness.attempts
    assert (attempt.service, attempt.instance, attempt.method, attempt.status) == ("users", "users-1", "GET", 200)
    assert (attempt.number, attempt.error, attempt.retrying) == (1, "", False)


@pytest.mark.parametrize("verb", ["post", "put", "patch", "delete"])
async def test_every_verb_sends_json(announce: Announce, open_caller: Open, verb: str) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            await getattr(mesh, verb)("users", "/users", json={"a": [1, None]}, idempotency_key="k")
    ((method, _, headers, body),) = peer.requests
    assert (method, body, headers["content-type"]) == (verb.upper(), b'{"a":[1,null]}', "application/json")
    assert headers["idempotency-key"] == "k"


async def test_raw_content_is_sent_as_it_is_and_gets_no_content_type(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            await mesh.request("POST", "users", "/users", content=b"\x00\xff")
    ((_, _, headers, body),) = peer.requests
    assert body == b"\x00\xff"
    assert "content-type" not in headers


@pytest.mark.parametrize(
    "path", ["users", "", "@evil.example/", ":81/", ".evil.example/", "/a\r\nX-Evil: 1", "/\x00", "/\x7f"]
)
async def test_a_path_that_would_run_into_the_host_or_the_headers_is_refused(
    announce: Announce, open_caller: Open, path: str
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with pytest.raises(BadInput):
                await mesh.get("users", path)
            assert mesh.balancer.in_flight == 0
    assert peer.requests == []


async def test_of_nobody_nobody_is_called(open_caller: Open) -> None:
    async with open_caller() as mesh:
        with pytest.raises(NoInstance) as raised:
            await mesh.get("users", "/")
        assert raised.value.retry_after == 1.0


@pytest.mark.parametrize("changes", [{"state": "draining"}, {"state": "starting"}, {"weight": 0.0}])
async def test_who_takes_no_requests_gets_none(announce: Announce, open_caller: Open, changes: dict[str, Any]) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url, **changes)
        async with open_caller() as mesh:
            with pytest.raises(NoInstance):
                await mesh.get("users", "/")
    assert peer.requests == []


async def test_a_redirect_is_a_reply_and_cookies_are_not_kept(announce: Announce, open_caller: Open) -> None:
    async def redirect(request: web.BaseRequest) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere", "Set-Cookie": "a=b"})

    async with http_peer(redirect) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            assert (await mesh.get("users", "/")).status == 302
            await mesh.get("users", "/")
    assert [path for _, path, _, _ in peer.requests] == ["/", "/"]
    assert all("cookie" not in headers for _, _, headers, _ in peer.requests)


async def test_a_proxy_of_the_environment_is_not_asked(
    announce: Announce, open_caller: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, await refused_url())
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            assert (await mesh.get("users", "/")).ok


# ------------------------------------------------------------------------------------------ context and deadline


async def test_the_context_of_the_request_travels_along(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with serving(sandbox="feature-x", traceparent="00-abc", deadline=time.monotonic() + 2, caller="gateway"):
                await mesh.get("users", "/", headers={"X-Mesh-Caller": "evil", "x-request-timeout-ms": "99999"})
    ((_, _, headers, _),) = peer.requests
    assert (headers["x-request-id"], headers["x-mesh-sandbox"], headers["traceparent"]) == (
        "abc",
        "feature-x",
        "00-abc",
    )
    assert headers["x-mesh-caller"] == "orders"
    assert 0 < int(headers["x-request-timeout-ms"]) <= 1995


@pytest.mark.parametrize(("timeout", "left", "most"), [(0.5, 2.0, 500), (5.0, 2.0, 1995), (None, None, 10_000)])
async def test_the_shorter_of_timeout_and_remaining_time_is_what_the_peer_is_told(
    announce: Announce, open_caller: Open, timeout: float | None, left: float | None, most: int
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with serving(deadline=time.monotonic() + left if left else float("inf")):
                await mesh.get("users", "/", timeout=timeout)
    told = int(peer.requests[0][2]["x-request-timeout-ms"])
    assert most / 2 < told <= most


@pytest.mark.parametrize("left", [-1.0, 0.0, 0.004])
async def test_with_no_time_left_nothing_is_done(announce: Announce, open_caller: Open, left: float) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with serving(deadline=time.monotonic() + left):
                with pytest.raises(DeadlineExceeded):
                    await mesh.get("users", "/")
                with pytest.raises(DeadlineExceeded):
                    async with mesh.stream("GET", "users", "/"):
                        pass
            with pytest.raises(DeadlineExceeded):
                await mesh.get("users", "/", timeout=0)
    assert peer.requests == []


async def test_a_peer_that_does_not_answer_in_time_is_a_deadline_exceeded_and_not_tried_again(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with pytest.raises(DeadlineExceeded, match="users-1"):
                await mesh.get("users", "/", timeout=0.1)
            assert mesh.balancer.in_flight == 0
            await until(lambda: peer.waiting == 0)
    assert outcomes(witness) == [(1, 0, "deadline_exceeded")]


async def test_the_deadline_bounds_the_body_too(announce: Announce, open_caller: Open) -> None:
    async with raw_peer(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", close=False)) as url:
        announce(url)
        async with open_caller() as mesh:
            with pytest.raises(DeadlineExceeded):
                await mesh.get("users", "/", timeout=0.1)
            assert mesh.balancer.in_flight == 0


# ------------------------------------------------------------------------------------------ trying again


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_refuses_the_connection_is_passed_over_whatever_the_method(
    announce: Announce, open_caller: Open, witness: Witness, method: str
) -> None:
    async with http_peer(hello) as peer:
        announce(await refused_url(), "dead")
        announce(peer.url, "alive")
        async with open_caller() as mesh:
            while all(attempt.instance != "dead" for attempt in witness.attempts):
                assert (await mesh.request(method, "users", "/")).ok
    refused, then = witness.attempts[-2:]
    assert (refused.instance, refused.error, refused.retrying) == ("dead", "peer_unreachable", True)
    assert (then.instance, then.number, then.status) == ("alive", 2, 200)
    assert peer.requests[-1][2]["x-mesh-attempt"] == "2"


async def test_three_that_have_just_died_do_not_hide_the_one_that_lives(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        for id_ in ("dead-1", "dead-2", "dead-3"):
            announce(await refused_url(), id_)
        announce(peer.url, "alive")
        async with open_caller() as mesh:
            assert all([(await mesh.post("users", "/")).ok for _ in range(20)])


async def test_if_nobody_accepts_the_error_says_that_nothing_was_sent(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    announce(await refused_url(), "dead")
    async with open_caller() as mesh:
        with pytest.raises(PeerUnreachable, match="users, instance dead") as raised:
            await mesh.post("users", "/")
        assert (raised.value.sent, raised.value.retry_after) == (False, 1.0)
    assert [attempt.number for attempt in witness.attempts] == [1, 2, 3, 4]


async def test_no_retries_means_one_attempt(announce: Announce, open_caller: Open, witness: Witness) -> None:
    announce(await refused_url(), "dead")
    async with open_caller(retries=0) as mesh:
        with pytest.raises(PeerUnreachable):
            await mesh.get("users", "/")
    assert len(witness.attempts) == 1


@pytest.mark.parametrize(
    ("method", "key", "attempts"),
    [("GET", None, 2), ("PUT", None, 2), ("DELETE", None, 2), ("POST", "k", 2), ("POST", None, 1), ("PATCH", None, 1)],
)
async def test_a_request_that_was_sent_and_cut_is_repeated_only_if_that_is_safe(
    announce: Announce, open_caller: Open, witness: Witness, method: str, key: str | None, attempts: int
) -> None:
    async with raw_peer(cut) as one, raw_peer(cut) as other:
        announce(one, "one")
        announce(other, "other")
        async with open_caller() as mesh:
            with pytest.raises(PeerUnreachable) as raised:
                await mesh.request(method, "users", "/", idempotency_key=key)
            assert raised.value.sent
            assert mesh.balancer.in_flight == 0
    assert [attempt.number for attempt in witness.attempts] == list(range(1, attempts + 1))
    assert len({attempt.instance for attempt in witness.attempts}) == attempts


@pytest.mark.parametrize(("method", "statuses"), [("GET", [503, 200]), ("POST", [503])])
async def test_a_503_is_taken_to_another_peer_only_if_that_is_safe(
    announce: Announce, open_caller: Open, witness: Witness, method: str, statuses: list[int]
) -> None:
    async with http_peer(unavailable) as busy, http_peer(hello) as free:
        announce(busy.url, "busy")
        async with open_caller() as mesh:
            await mesh.request(method, "users", "/warm-up")
            mesh.balancer.retain([])
            announce(free.url, "free", weight=0.001)
            await until(lambda: len(mesh.directory.ready("users")) == 2)
            while True:
                witness.attempts.clear()
                await mesh.request(method, "users", "/")
                if witness.attempts[0].instance == "busy":
                    break
    assert [attempt.status for attempt in witness.attempts] == statuses


async def test_on_behalf_of_a_repeated_request_nothing_is_repeated(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(unavailable) as one, http_peer(unavailable) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller() as mesh:
            with context.activate(context.Context("r", attempt=2)):
                await mesh.get("users", "/")
            assert outcomes(witness) == [(1, 503, "")]
            with context.activate(context.Context("r", attempt=1)):
                await mesh.get("users", "/")
    assert outcomes(witness)[1:] == [(1, 503, ""), (2, 503, "")]


async def test_a_503_of_the_only_instance_is_its_reply(announce: Announce, open_caller: Open, witness: Witness) -> None:
    async with http_peer(unavailable) as busy:
        announce(busy.url)
        async with open_caller() as mesh:
            reply = await mesh.get("users", "/")
            assert (reply.status, reply.retry_after_seconds) == (503, 7.0)
    assert len(witness.attempts) == 1


async def test_a_connection_that_the_peer_closed_while_it_was_idle_costs_a_get_nothing_and_fails_a_post(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The second request on a connection finds it closed, as if its idle time had just run out.
        if writer in writers:
            writer.close()
            return
        writers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with raw_peer(keep) as url:
        announce(url)
        async with open_caller() as mesh:
            await mesh.get("users", "/")
            assert (await mesh.get("users", "/")).ok
            assert len(writers) == 2
            with pytest.raises(PeerUnreachable) as raised:
                await mesh.post("users", "/")
            assert raised.value.sent
    assert outcomes(witness)[1:] == [(1, 0, "peer_unreachable"), (2, 200, ""), (1, 0, "peer_unreachable")]


async def test_a_service_that_always_fails_gets_little_more_than_what_it_is_asked(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(unavailable) as one, http_peer(unavailable) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller() as mesh:
            started = time.monotonic()
            for _ in range(40):
                await asyncio.gather(*(mesh.get("users", "/") for _ in range(25)))
            seconds = time.monotonic() - started
    # A fifth of the calls, ten a second, and what the window of ten seconds had in store.
    assert 1000 < len(witness.attempts) <= 1000 + 200 + 10 * (seconds + 11)


async def test_a_name_that_resolves_outside_the_allowed_networks_is_not_connected_to(
    registry: BlockingRegistry, namespace: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        address = {"evil.example": "127.0.0.2", "users.svc": "127.0.0.1"}[host]
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    narrow = fast_settings(namespace, registry={"allowed_networks": ["127.0.0.1/32"]})
    async with http_peer(hello, host="0.0.0.0") as peer, mesh_of(narrow, redis_url) as mesh:
        port = peer.url.rpartition(":")[2]
        beat(registry, narrow, instance(id="evil", url=f"http://evil.example:{port}"))
        await until(lambda: mesh.directory.ready("users"))
        with pytest.raises(PeerUnreachable) as raised:
            await mesh.get("users", "/", timeout=5)
        assert not raised.value.sent
        beat(registry, narrow, instance(id="good", url=f"http://users.svc:{port}"))
        await until(lambda: len(mesh.directory.ready("users")) == 2)
        assert (await mesh.get("users", "/")).ok


# ------------------------------------------------------------------------------------------ replies that are not welcome


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 100_000),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 500)[:-9],
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nrubbish",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n\r\nrubbish",
        b"rubbish\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ],
    ids=["long", "said to be long", "long in chunks", "long to its end", "bomb", "torn gzip", "no gzip", "brotli", "no HTTP", "status"],
)  # fmt: skip
async def test_a_reply_that_is_too_long_or_broken_is_a_bad_reply(
    announce: Announce, open_caller: Open, raw: bytes
) -> None:
    async with raw_peer(answer(raw)) as url:
        announce(url)
        async with open_caller(max_reply_bytes=1000) as mesh:
            with pytest.raises(BadReply):
                await mesh.get("users", "/")
            assert mesh.balancer.in_flight == 0


async def test_a_packed_reply_is_not_unpacked_beyond_the_longest_length() -> None:
    assert decoded(gzip.compress(b"x" * 1000), "GZIP", max_bytes=1000) == b"x" * 1000
    with pytest.raises(BadReply, match="unpacks to more than 999 bytes"):
        decoded(gzip.compress(b"x" * 1000), "gzip", max_bytes=999)


async def test_a_reply_of_just_the_longest_length_is_read_packed_or_not(announce: Announce, open_caller: Open) -> None:
    async def long(request: web.BaseRequest) -> web.Response:
        response = web.Response(body=b"x" * 1000)
        if request.path == "/packed":
            response.enable_compression(web.ContentCoding.gzip)
        if request.path == "/chunked":
            response.enable_chunked_encoding()
        return response

    async with http_peer(long) as peer:
        announce(peer.url)
        async with open_caller(max_reply_bytes=1000) as mesh:
            for path in ("/", "/packed", "/chunked"):
                reply = await mesh.get("users", path, headers={"accept-encoding": "gzip"})
                assert reply.body == b"x" * 1000


async def test_a_reply_that_breaks_off_is_unreachable_and_not_half_a_reply(
    announce: Announce, open_caller: Open
) -> None:
    async with raw_peer(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")) as url:
        announce(url)
        async with open_caller() as mesh:
            with pytest.raises(PeerUnreachable) as raised:
                await mesh.post("users", "/")
            assert raised.value.sent


async def test_a_reply_to_head_has_a_length_and_no_body(announce: Announce, open_caller: Open) -> None:
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"
    async with raw_peer(answer(raw, close=False)) as url:
        announce(url)
        async with open_caller(max_reply_bytes=1000) as mesh:
            reply = await mesh.request("HEAD", "users", "/")
            assert (reply.headers["content-length"], reply.body) == ("5000", b"")


# ------------------------------------------------------------------------------------------ streaming


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
        assert len(request.headers.getall("x-request-timeout-ms")) == 1
        received.append((request.raw_path, request.headers.getall("x-a"), await request.read()))
        return web.Response()

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"abc", b"", b"def"):
            yield piece

    async with http_peer(listen) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            forged = [("X-Mesh-Caller", "evil"), ("x-request-timeout-ms", "1")]
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
            await asyncio.sleep(0.1)
        await asyncio.Event().wait()
        return response

    async with http_peer(drip) as peer:
        announce(peer.url)
        got = bytearray()
        async with open_caller() as mesh:
            with pytest.raises(DeadlineExceeded):
                await collect(mesh, got, timeout=0.4)
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
            assert not mesh.balancer._gauges["users-1"].failing
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


# ------------------------------------------------------------------------------------------ cancellation


@pytest.mark.parametrize("how", ["request", "stream"])
async def test_a_cancelled_call_is_no_longer_in_flight_here_or_there(
    announce: Announce, open_caller: Open, how: str
) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller() as mesh:

            async def streaming() -> None:
                async with mesh.stream("GET", "users", "/"):
                    pass

            task = asyncio.ensure_future(mesh.get("users", "/") if how == "request" else streaming())
            await until(lambda: peer.waiting)
            assert mesh.balancer.in_flight == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert mesh.balancer.in_flight == 0
            await until(lambda: peer.waiting == 0)


async def test_calls_that_are_cancelled_at_random_leave_nothing_behind_and_cross_no_replies(
    announce: Announce, open_caller: Open
) -> None:
    rng = random.Random(7)

    async def echo(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(rng.uniform(0, 0.01))
        return web.Response(text=request.path)

    async with http_peer(echo) as peer:
        announce(peer.url)
        seen: Counter[str] = Counter()
        async with open_caller() as mesh:

            async def call(number: int) -> None:
                task = asyncio.ensure_future(mesh.get("users", f"/{number}"))
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.uniform(0, 0.01))
                    task.cancel()
                try:
                    assert (await task).body == b"/%d" % number
                    seen["whole"] += 1
                except asyncio.CancelledError:
                    seen["cancelled"] += 1

            for start in range(0, 1000, 50):
                await asyncio.gather(*(call(number) for number in range(start, start + 50)))
            assert mesh.balancer.in_flight == 0
            assert "0 running" in repr(mesh._deadlines)
        assert seen["cancelled"] > 50
        assert seen["whole"] > 500


# ------------------------------------------------------------------------------------------ opening


@pytest.mark.parametrize(
    "wrong",
    [{"url": "http://8.8.8.8:80"}, {"url": "localhost:80"}, {"prefixes": ["users"]}, {"version": "x" * 200}],
    ids=["network", "url", "prefix", "version"],
)
async def test_a_process_whose_record_nobody_would_believe_does_not_start(
    settings: Settings, redis_url: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Misconfigured, match="Peers would refuse"):
        async with mesh_of(settings, redis_url, **wrong):
            pass


async def test_a_lease_that_one_late_heartbeat_would_end_is_misconfigured(namespace: str, redis_url: str) -> None:
    hasty = fast_settings(namespace, registry={"lease_seconds": 1.0, "heartbeat_seconds": 0.5})
    with pytest.raises(Misconfigured, match="lease_seconds"):
        async with mesh_of(hasty, redis_url):
            pass


async def test_a_closed_mesh_calls_nobody(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            pass
        with pytest.raises(PeerUnreachable):
            await mesh.get("users", "/")
    assert peer.requests == []
