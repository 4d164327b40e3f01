"""What stands in for a failure: an old reply, or a function of the caller's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from app.errors import BadReply, CircuitOpen, DeadlineExceeded, MeshError, NoInstance, PeerUnreachable
from app.mesh import Mesh, Reply
from tests.mesh.actors import Witness, http_peer, refused_url, until
from tests.mesh.calling.scenes import Announce, Open, decided, forever, replying, serving


class Moody:
    """A peer that answers well until it is told otherwise."""

    def __init__(self) -> None:
        self.status, self.count = 200, 0

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.count += 1
        who = request.headers.get("authorization", "nobody")
        return web.json_response({"count": self.count, "who": who}, status=self.status)


async def test_a_function_gives_a_reply_in_the_place_of_an_error(open_caller: Open, witness: Witness) -> None:
    heard: list[MeshError] = []

    def instead(error: MeshError) -> Reply:
        heard.append(error)
        return Reply.of({"name": "somebody"})

    async with open_caller() as mesh:
        reply = await mesh.get("users", "/7", fallback=instead)
    assert (reply.status, reply.json(), reply.fallback) == (200, {"name": "somebody"}, "function")
    assert [type(error) for error in heard] == [NoInstance]
    assert decided(witness, "fallback") == ["function"]


async def test_a_function_may_be_asynchronous_and_may_raise(open_caller: Open) -> None:
    async def instead(error: MeshError) -> Reply:
        await asyncio.sleep(0)
        return Reply.of([], status=206)

    def refuse(error: MeshError) -> Reply:
        raise KeyError("no")

    async with open_caller() as mesh:
        reply = await mesh.post("users", "/", fallback=instead)
        assert (reply.status, reply.fallback) == (206, "function")
        with pytest.raises(KeyError):
            await mesh.get("users", "/", fallback=refuse)


@pytest.mark.parametrize(
    ("status", "error"), [(500, BadReply), (502, BadReply), (503, MeshError), (504, BadReply), (404, None), (200, None)]
)
async def test_of_the_replies_only_failures_are_replaced(
    announce: Announce, open_caller: Open, status: int, error: type[MeshError] | None
) -> None:
    heard: list[MeshError] = []

    def instead(error: MeshError) -> Reply:
        heard.append(error)
        return Reply.of({})

    async with http_peer(replying(status, retry_after="3")) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            reply = await mesh.get("users", "/", fallback=instead)
    assert reply.status == (200 if error else status)
    assert [type(one) for one in heard] == ([error] if error else [])
    if status == 503:
        assert heard[0].retry_after == 3.0


async def test_every_way_to_fail_is_replaced(announce: Announce, open_caller: Open) -> None:
    heard: list[type[MeshError]] = []

    def instead(error: MeshError) -> Reply:
        heard.append(type(error))
        return Reply.of({})

    announce(await refused_url(), "dead")
    async with open_caller(retries=0, others={"balancing": {"ejection": False}}) as mesh:
        with serving(deadline=0.0):
            await mesh.get("users", "/", fallback=instead)
        for _ in range(11):
            await mesh.get("users", "/", fallback=instead)
    assert (heard[0], heard[1], heard[-1]) == (DeadlineExceeded, PeerUnreachable, CircuitOpen)


async def test_a_cancelled_call_has_no_fallback(announce: Announce, open_caller: Open) -> None:
    def instead(error: MeshError) -> Reply:
        raise AssertionError

    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            task = asyncio.ensure_future(mesh.get("users", "/", fallback=instead))
            await until(lambda: peer.waiting)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


# ------------------------------------------------------------------------------------------ stale replies


async def last(mesh: Mesh, path: str = "/7", *, stale_seconds: float | None = 60, **options: Any) -> Reply:
    return await mesh.get("users", path, stale_seconds=stale_seconds, **options)


async def test_the_last_good_reply_stands_in_for_a_failure_and_says_so(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    moody = Moody()
    async with http_peer(moody) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            assert [(await last(mesh)).json()["count"] for _ in range(2)] == [1, 2]
            moody.status = 503
            reply = await last(mesh)
            assert (reply.status, reply.json()["count"], reply.fallback) == (200, 2, "stale")
            assert (await mesh.get("users", "/7")).status == 503
    assert decided(witness, "fallback") == ["stale"]


async def test_a_stale_reply_is_never_somebody_elses(announce: Announce, open_caller: Open) -> None:
    moody = Moody()
    async with http_peer(moody) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            await last(mesh, headers={"Authorization": "a"})
            moody.status = 503
            assert (await last(mesh, headers={"Authorization": "a"})).json()["who"] == "a"
            for other in ({"Authorization": "b"}, {}, {"Authorization": "a", "accept": "text/plain"}):
                assert (await last(mesh, headers=other)).status == 503
            with serving(sandbox="feature-x"):
                assert (await last(mesh, headers={"Authorization": "a"})).status == 503


async def test_a_stale_reply_comes_before_the_function_and_an_old_one_not_at_all(
    announce: Announce, open_caller: Open
) -> None:
    moody = Moody()
    async with http_peer(moody) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            await last(mesh)
            moody.status = 500
            assert (await last(mesh, fallback=lambda _: Reply.of({}))).fallback == "stale"
            assert (await last(mesh, fallback=lambda _: Reply.of({}), stale_seconds=1e-9)).fallback == "function"
            assert (await last(mesh, stale_seconds=0)).status == 500


async def test_a_write_is_never_answered_from_memory(announce: Announce, open_caller: Open) -> None:
    moody = Moody()
    async with http_peer(moody) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            await mesh.put("users", "/7", stale_seconds=60)
            moody.status = 503
            assert (await mesh.put("users", "/7", stale_seconds=60)).status == 503
            assert mesh.describe()["stale_replies"] == 0


async def test_the_settings_may_ask_for_stale_replies(announce: Announce, open_caller: Open) -> None:
    moody = Moody()
    async with http_peer(moody) as peer:
        announce(peer.url)
        async with open_caller(services={"users": {"stale_seconds": 60}}) as mesh:
            await mesh.get("users", "/7")
            moody.status = 503
            assert (await mesh.get("users", "/7")).fallback == "stale"
