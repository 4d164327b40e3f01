"""Whole calls: a real registry, real HTTP servers, real sockets."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from app.context import Priority
from app.errors import BadInput, BadReply, DeadlineExceeded, Misconfigured, NoInstance, PeerUnreachable
from app.mesh.calling.coding import decoded
from app.settings import Settings
from tests.mesh.actors import Witness, fast_settings, http_peer, mesh_of, raw_peer, refused_url, until
from tests.mesh.calling.scenes import (
    Announce,
    Open,
    answer,
    forever,
    hello,
    outcomes,
    serving,
)

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


@pytest.mark.parametrize(
    ("of_request", "of_call", "told"),
    [("normal", None, None), ("critical", None, "critical"), ("critical", "sheddable", "sheddable"),
     ("normal", "critical", "critical")],
)  # fmt: skip
async def test_a_call_is_as_urgent_as_it_says_or_else_as_its_request(
    announce: Announce, open_caller: Open, of_request: Priority, of_call: Priority | None, told: str | None
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with serving(priority=of_request):
                await mesh.get("users", "/", priority=of_call)
                async with mesh.stream("GET", "users", "/", priority=of_call):
                    pass
    assert [headers.get("x-mesh-priority") for _, _, headers, _ in peer.requests] == [told, told]


async def test_a_request_of_a_sandbox_goes_to_the_sandbox_and_takes_it_along(
    announce: Announce, open_caller: Open
) -> None:
    async with http_peer(hello) as common, http_peer(hello) as special:
        announce(common.url, "common")
        announce(special.url, "special", sandbox="feature-x")
        async with open_caller() as mesh:
            for _ in range(5):
                await mesh.get("users", "/")
                with serving(sandbox="feature-x"):
                    await mesh.get("users", "/")
                with serving(sandbox="feature-y"):
                    await mesh.get("users", "/")
    assert [headers["x-mesh-sandbox"] for _, _, headers, _ in special.requests] == ["feature-x"] * 5
    assert [headers.get("x-mesh-sandbox") for _, _, headers, _ in common.requests] == [None, "feature-y"] * 5


async def test_what_is_sticky_goes_to_the_same_instance(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(hello) as one, http_peer(hello) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller() as mesh:
            for _ in range(3):
                for number in range(10):
                    await mesh.get("users", "/", sticky=f"user-{number}")
    asked = [attempt.instance for attempt in witness.attempts]
    assert asked[:10] == asked[10:20] == asked[20:]
    assert set(asked) == {"one", "other"}


async def test_a_body_may_come_piece_by_piece(announce: Announce, open_caller: Open) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            assert (await mesh.put("users", "/", content=pieces())).ok
    assert peer.requests[0][3] == b"abcdef"


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
