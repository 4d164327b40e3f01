"""Calls that are given up: nothing stays behind, and no reply crosses to another call."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.mesh import Mesh
from app.mesh.balancing.breaker import State
from tests.mesh.actors import http_peer, until
from tests.mesh.calling.scenes import Announce, Open, connections_in_use, forever, unavailable


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


CALLS, AT_ONCE, CANCELLED = 3000, 50, 0.1


async def test_calls_that_are_cancelled_at_random_leave_nothing_behind_and_cross_no_replies(
    announce: Announce, open_caller: Open
) -> None:
    rng = random.Random(7)

    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.004)))
        if rng.random() < 0.5:
            return web.Response(text=request.path)
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (request.path[:3], request.path[3:]):
            await response.write(piece.encode())
            await asyncio.sleep(rng.choice((0, 0.001)))
        return response

    async with http_peer(echo) as one, http_peer(echo) as other, http_peer(echo) as third:
        for number, peer in enumerate((one, other, third)):
            announce(peer.url, f"users-{number}")
        seen: Counter[str] = Counter()
        # Few connections, each of which serves many calls: a reply that is left on one would be somebody else's.
        async with open_caller(max_connections_per_peer=8) as mesh:
            for start in range(0, CALLS, AT_ONCE):
                calls = [_one_call(mesh, number, rng, seen) for number in range(start, start + AT_ONCE)]
                await asyncio.gather(*calls)
            _is_at_rest(mesh)
            assert (await mesh.get("users", "/after")).body == b"/after"
    assert seen["cancelled"] > CALLS * CANCELLED / 2
    assert seen["whole"] > CALLS / 2
    assert seen["whole"] + seen["cancelled"] == CALLS


async def _one_call(mesh: Mesh, number: int, rng: random.Random, seen: Counter[str]) -> None:
    path = f"/{number}"
    how = rng.choice((_plainly, _streamed, _hedged, _shared))
    task = asyncio.ensure_future(how(mesh, path))
    if rng.random() < CANCELLED * 1.5:
        await asyncio.sleep(rng.choice((0, 0, 0.001, 0.003)))
        task.cancel()
    try:
        assert await task == path.encode()
        seen["whole"] += 1
    except asyncio.CancelledError:
        seen["cancelled"] += 1


async def _plainly(mesh: Mesh, path: str) -> bytes:
    return (await mesh.get("users", path)).body


async def _hedged(mesh: Mesh, path: str) -> bytes:
    return (await mesh.get("users", path, hedge=True)).body


async def _shared(mesh: Mesh, path: str) -> bytes:
    return (await mesh.get("users", path, share=True)).body


async def _streamed(mesh: Mesh, path: str) -> bytes:
    async with mesh.stream("PUT", "users", path, content=_pieces()) as reply:
        return b"".join([chunk async for chunk in reply.chunks()])


async def _pieces() -> AsyncIterator[bytes]:
    for piece in (b"abc", b"def"):
        yield piece
        await asyncio.sleep(0)


def _is_at_rest(mesh: Mesh) -> None:
    described = mesh.describe()
    assert (described["in_flight"], described["flights"]) == (0, 0)
    assert all(peer["in_flight"] == 0 for peer in described["services"]["users"]["peers"])
    assert connections_in_use(mesh) == 0
    assert "0 running" in repr(mesh._attempts._deadlines)


async def test_a_probe_that_is_cancelled_gives_its_place_back(announce: Announce, open_caller: Open) -> None:
    """A half-open breaker has few places: were they lost, it would reject everybody for long."""
    async with http_peer(unavailable) as failing:
        announce(failing.url)
        async with open_caller(others={"breaker": {"open_seconds": 0.01}}) as mesh:
            breaker = mesh._targets.of("users").breaker
            while breaker.state is State.CLOSED:
                await mesh.get("users", "/")
            await until(lambda: breaker.opens_at(time.monotonic()) <= time.monotonic())
            for _ in range(20):
                task = asyncio.ensure_future(mesh.get("users", "/"))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert breaker.state is State.HALF_OPEN
            assert "0 out" in breaker.story(time.monotonic())
