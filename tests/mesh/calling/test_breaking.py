"""The breaker around calls: what counts as a service's failure, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import CircuitOpen, DeadlineExceeded, NoInstance, PeerUnreachable
from app.mesh import Mesh
from app.mesh.balancing.breaker import State
from tests.mesh.actors import Answer, Witness, http_peer, refused_url, until
from tests.mesh.calling.scenes import Announce, Open, decided, forever, hello, replying, unavailable

# Peers have breakers and ejections of their own, which are not the subject here.
SERVICE_ONLY = {"balancing": {"ejection": False}}


def state(mesh: Mesh) -> State:
    return mesh._targets.of("users").breaker.state


async def test_a_service_that_fails_is_asked_no_more_for_a_while(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(unavailable) as peer:
        announce(peer.url)
        async with open_caller(others=SERVICE_ONLY) as mesh:
            for _ in range(10):
                await mesh.post("users", "/")
            with pytest.raises(CircuitOpen, match="10 of 10 calls failed") as raised:
                await mesh.post("users", "/")
            assert raised.value.retry_after is not None
            with pytest.raises(CircuitOpen):
                async with mesh.stream("GET", "users", "/"):
                    pass
    assert len(peer.requests) == 10
    assert decided(witness, "breaker").count("rejected") == 2


@pytest.mark.parametrize(
    "reply",
    [
        replying(404), replying(409), replying(429), replying(429, retry_after="1"), replying(501),
        replying(503, x_mesh_unprocessed="overloaded"),
    ],
    ids=["404", "409", "429", "429 later", "501", "overloaded"],
)  # fmt: skip
async def test_what_is_no_failure_of_the_service_opens_nothing(
    announce: Announce, open_caller: Open, reply: Answer
) -> None:
    async with http_peer(reply) as peer:
        announce(peer.url)
        async with open_caller(others=SERVICE_ONLY) as mesh:
            for _ in range(25):
                await mesh.get("users", "/")
            assert state(mesh) is State.CLOSED


async def test_the_callers_own_cancellations_open_nothing(announce: Announce, open_caller: Open) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller(others=SERVICE_ONLY) as mesh:
            tasks = [asyncio.ensure_future(mesh.get("users", "/")) for _ in range(25)]
            await until(lambda: peer.waiting == 25)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert state(mesh) is State.CLOSED
            assert mesh.balancer.in_flight == 0


async def test_who_gives_a_peer_hardly_any_time_harms_nobody_else(announce: Announce, open_caller: Open) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller(others=SERVICE_ONLY) as mesh:
            mesh._targets.of("users").latencies.median = 5.0
            for _ in range(12):
                with pytest.raises(DeadlineExceeded):
                    await mesh.get("users", "/", timeout=0.005)
            assert state(mesh) is State.CLOSED
            (candidate,) = mesh.balancer.explain("users")
            assert candidate.state.startswith("ok")


async def test_who_is_silent_for_longer_than_usual_has_failed(announce: Announce, open_caller: Open) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller(others=SERVICE_ONLY) as mesh:
            for _ in range(10):
                with pytest.raises(DeadlineExceeded):
                    await mesh.post("users", "/", timeout=0.01)
            assert state(mesh) is State.OPEN


async def test_a_call_that_another_peer_has_rescued_is_a_success(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(await refused_url(), "dead")
        announce(peer.url, "alive")
        async with open_caller(others=SERVICE_ONLY) as mesh:
            for _ in range(25):
                assert (await mesh.post("users", "/")).ok
            assert state(mesh) is State.CLOSED


async def test_a_service_that_comes_back_under_new_processes_is_called_at_once(
    announce: Announce, open_caller: Open
) -> None:
    announce(await refused_url(), "dead")
    async with open_caller(retries=0, others=SERVICE_ONLY) as mesh:
        while state(mesh) is State.CLOSED:
            with pytest.raises(PeerUnreachable):
                await mesh.get("users", "/")
        async with http_peer(hello) as peer:
            announce(peer.url, "new")
            await until(lambda: len(mesh.directory.ready("users")) == 2)
            assert state(mesh) is State.CLOSED


async def test_of_whom_nobody_is_there_nothing_opens(open_caller: Open) -> None:
    async with open_caller() as mesh:
        for _ in range(25):
            with pytest.raises(NoInstance):
                await mesh.get("users", "/")
        assert mesh.describe()["services"] == {}
