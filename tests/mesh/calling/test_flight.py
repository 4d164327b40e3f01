"""One flight for many: who waits, who is cancelled, and when the work ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from app.errors import DeadlineExceeded, PeerUnreachable
from app.mesh.calling.flight import Flights
from tests.mesh.actors import Witness, http_peer, raw_peer, until
from tests.mesh.calling.scenes import Announce, Open, cut, decided, forever, serving


class Work:
    """Counts how often it was begun and given up."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return f"answer {self.begun}"


async def joined(flights: Flights[str, str], work: Any, key: str = "k", *, until_: float = 10.0) -> asyncio.Task[str]:
    task = asyncio.ensure_future(flights.join(key, work, until=until_, ends_at=20.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_all_who_ask_for_the_same_have_the_same_answer_of_one_work() -> None:
    flights, work = Flights[str, str](), Work()
    waiters = [await joined(flights, work) for _ in range(100)]
    work.go_on.set()
    assert await asyncio.gather(*waiters) == ["answer 1"] * 100
    assert (work.begun, len(flights)) == (1, 0)


async def test_other_keys_are_other_flights() -> None:
    flights, work = Flights[str, str](), Work()
    waiters = [await joined(flights, work, key) for key in "ab"]
    work.go_on.set()
    await asyncio.gather(*waiters)
    assert work.begun == 2


async def test_a_failure_reaches_all_and_is_not_kept() -> None:
    flights = Flights[str, str]()
    go_on = asyncio.Event()

    async def fail() -> str:
        await go_on.wait()
        raise PeerUnreachable(sent=True)

    waiters = [await joined(flights, fail) for _ in range(3)]
    go_on.set()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(result) for result in results] == [PeerUnreachable] * 3
    assert len(flights) == 0


@pytest.mark.parametrize("leaver", [0, 1])
async def test_who_gives_up_harms_nobody_else_whoever_came_first(leaver: int) -> None:
    flights, work = Flights[str, str](), Work()
    waiters = [await joined(flights, work) for _ in range(2)]
    waiters.pop(leaver).cancel()
    await asyncio.sleep(0)
    work.go_on.set()
    assert await waiters[0] == "answer 1"
    assert work.cancelled == 0


async def test_the_last_one_to_give_up_takes_the_work_along() -> None:
    flights, work = Flights[str, str](), Work()
    waiters = [await joined(flights, work) for _ in range(3)]
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    await until(lambda: work.cancelled == 1)
    assert len(flights) == 0
    late = await joined(flights, work)
    work.go_on.set()
    assert await late == "answer 2"


async def test_a_flight_that_may_end_too_early_is_not_for_whom_has_more_time() -> None:
    flights, work = Flights[str, str](), Work()
    first = await joined(flights, work, until_=10.0)
    assert flights.is_under_way("k", 20.0)
    assert not flights.is_under_way("k", 21.0)
    patient = await joined(flights, work, until_=21.0)
    assert work.begun == 2
    work.go_on.set()
    assert {await first, await patient} == {"answer 2"}
    assert len(flights) == 0


# ------------------------------------------------------------------------------------------ through the mesh


async def test_identical_gets_make_one_request(announce: Announce, open_caller: Open, witness: Witness) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        await go_on.wait()
        return web.Response(text="once")

    async with http_peer(slow) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            tasks = [asyncio.ensure_future(mesh.get("users", "/7", share=True)) for _ in range(50)]
            await until(lambda: peer.waiting)
            go_on.set()
            assert {(await task).body for task in tasks} == {b"once"}
            # Who only waits for others makes no call, and earns no repetition.
            assert mesh.describe()["services"]["users"]["repetitions_left"] == 100.2
    assert len(peer.requests) == 1
    assert Counter(decided(witness, "flight")) == {"led": 1, "joined": 49}


async def test_users_sandboxes_paths_and_headers_are_never_mixed(announce: Announce, open_caller: Open) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        await go_on.wait()
        said = [request.headers.get(name, "") for name in ("authorization", "x-mesh-sandbox", "accept")]
        return web.json_response([request.path, *said])

    asked = [
        ("/7", {"authorization": "Bearer a"}, None), ("/7", {"Authorization": "Bearer b"}, None), ("/7", {}, None),
        ("/7", {}, "feature-x"), ("/7", {"accept": "text/plain"}, None), ("/8", {}, None),
    ]  # fmt: skip
    async with http_peer(slow) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            tasks = []
            for path, headers, sandbox in asked * 2:
                with serving(sandbox=sandbox):
                    tasks.append(asyncio.ensure_future(mesh.get("users", path, headers=headers, share=True)))
            await until(lambda: peer.waiting == len(asked))
            go_on.set()
            got = [(await task).json() for task in tasks]
    for (path, headers, sandbox), reply in zip(asked * 2, got, strict=True):
        lowered = {name.lower(): value for name, value in headers.items()}
        assert reply == [path, lowered.get("authorization", ""), sandbox or "", lowered.get("accept", "")]
    assert len(peer.requests) == len(asked)


async def test_each_waiter_keeps_its_own_deadline(announce: Announce, open_caller: Open) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        await go_on.wait()
        return web.Response(text="late")

    async with http_peer(slow) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            patient = asyncio.ensure_future(mesh.get("users", "/", share=True, timeout=15))
            await until(lambda: peer.waiting)
            with pytest.raises(DeadlineExceeded, match="shared"):
                await mesh.get("users", "/", share=True, timeout=0.05)
            go_on.set()
            assert (await patient).body == b"late"
    assert len(peer.requests) == 1


async def test_a_leader_in_a_hurry_does_not_hurry_those_who_joined_it(announce: Announce, open_caller: Open) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.Response:
        await go_on.wait()
        return web.Response(text="late")

    async with http_peer(slow) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            hasty = asyncio.ensure_future(mesh.get("users", "/", share=True, timeout=1.0))
            await until(lambda: peer.waiting)
            joiner = asyncio.ensure_future(mesh.get("users", "/", share=True, timeout=1.5))
            with pytest.raises(DeadlineExceeded):
                await hasty
            go_on.set()
            assert (await joiner).body == b"late"
    assert len(peer.requests) == 1


async def test_the_peer_is_let_go_when_the_last_waiter_has_gone(announce: Announce, open_caller: Open) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            tasks = [asyncio.ensure_future(mesh.get("users", "/", share=True)) for _ in range(3)]
            await until(lambda: peer.waiting)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: peer.waiting == 0 and mesh.balancer.in_flight == 0)


async def test_what_is_no_get_is_never_shared(announce: Announce, open_caller: Open, witness: Witness) -> None:
    async with raw_peer(cut) as url:
        announce(url)
        async with open_caller() as mesh:
            results = await asyncio.gather(
                *(mesh.post("users", "/", share=True) for _ in range(3)), return_exceptions=True
            )
    assert len(witness.attempts) == 3
    assert len({id(result) for result in results}) == 3
