"""A second runner for a late call: alone, and through the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from app.errors import PeerUnreachable
from app.mesh.calling import hedge
from app.mesh.calling.hedge import Winner
from app.mesh.calling.reply import Reply
from tests.mesh.actors import Witness, http_peer, until
from tests.mesh.calling.scenes import Announce, Open, decided, forever, hello, key_for, unavailable

FIRST, SECOND, BROKEN = Reply(200, {}, b"first"), Reply(200, {}, b"second"), Reply(503)
UNREACHABLE = PeerUnreachable(sent=True)


class Runner:
    """Answers when it is told to; remembers how it ended."""

    def __init__(self, result: Reply | Exception) -> None:
        self.result, self.go_on, self.ended = result, asyncio.Event(), ""
        self.began = asyncio.Event()

    async def __call__(self) -> Reply:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "answered"
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def never() -> Callable[[], Coroutine[Any, Any, Reply]]:
    raise AssertionError("nobody else is to be asked")


async def test_a_first_that_is_in_time_runs_alone() -> None:
    first = Runner(FIRST)
    first.go_on.set()
    assert await hedge.race(first, never, after_seconds=10) == (FIRST, Winner.ALONE)


async def test_where_there_is_no_second_the_first_is_waited_for() -> None:
    first = Runner(FIRST)

    def nobody() -> None:
        first.go_on.set()

    assert await hedge.race(first, nobody, after_seconds=0) == (FIRST, Winner.ALONE)


@pytest.mark.parametrize(("winner", "ended"), [(0, ("answered", "cancelled")), (1, ("cancelled", "answered"))])
async def test_the_first_good_reply_counts_and_the_other_runner_is_called_back(
    winner: int, ended: tuple[str, str]
) -> None:
    runners = Runner(FIRST), Runner(SECOND)
    racing = asyncio.ensure_future(hedge.race(runners[0], lambda: runners[1], after_seconds=0))
    await runners[1].began.wait()
    runners[winner].go_on.set()
    reply, won = await racing
    assert (reply, won) == ((FIRST, Winner.FIRST), (SECOND, Winner.SECOND))[winner]
    assert (runners[0].ended, runners[1].ended) == ended


@pytest.mark.parametrize("bad", [BROKEN, UNREACHABLE], ids=["503", "unreachable"])
@pytest.mark.parametrize("loser", [0, 1])
async def test_a_failure_waits_for_what_the_other_has_to_say(bad: Reply | Exception, loser: int) -> None:
    results: list[Reply | Exception] = [FIRST, SECOND]
    results[loser] = bad
    first, second = Runner(results[0]), Runner(results[1])
    racing = asyncio.ensure_future(hedge.race(first, lambda: second, after_seconds=0))
    await second.began.wait()
    (first, second)[loser].go_on.set()
    await asyncio.sleep(0.01)
    assert not racing.done()
    (second, first)[loser].go_on.set()
    assert (await racing)[0] is results[1 - loser]


async def test_if_both_fail_the_first_is_heard() -> None:
    first, second = Runner(UNREACHABLE), Runner(BROKEN)
    first.go_on.set()
    second.go_on.set()
    racing = asyncio.ensure_future(hedge.race(first, lambda: second, after_seconds=10))
    with pytest.raises(PeerUnreachable):
        await racing
    first = Runner(UNREACHABLE)
    racing = asyncio.ensure_future(hedge.race(first, lambda: second, after_seconds=0))
    await second.began.wait()
    first.go_on.set()
    with pytest.raises(PeerUnreachable):
        await racing


async def test_who_gives_up_a_race_ends_both_runners() -> None:
    first, second = Runner(FIRST), Runner(SECOND)
    racing = asyncio.ensure_future(hedge.race(first, lambda: second, after_seconds=0))
    await second.began.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert (first.ended, second.ended) == ("cancelled", "cancelled")


# ------------------------------------------------------------------------------------------ through the mesh


async def test_a_late_call_is_answered_by_a_second_peer_and_the_first_is_let_go(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(forever) as late, http_peer(hello) as quick:
        announce(late.url, "late")
        announce(quick.url, "quick")
        async with open_caller() as mesh:
            key = key_for(mesh, "late")
            mesh._targets.of("users").latencies.record(0.01, 0.0)
            reply = await mesh.get("users", "/7", hedge=True, sticky=key)
            assert reply.json() == {"path": "/7"}
            assert mesh.balancer.in_flight == 0
            await until(lambda: late.waiting == 0)
            users = mesh.describe()["services"]["users"]
            # One call, which earns a fifth of a repetition, and one repetition.
            assert (users["hedges"], users["repetitions_left"]) == (1, 99.2)
    assert decided(witness, "hedge") == ["sent", "won"]
    assert quick.requests[0][2]["x-mesh-attempt"] == "2"
    # Nothing was held against the one that was let go: only what came back is an attempt.
    assert [attempt.instance for attempt in witness.attempts] == ["quick"]


async def test_before_anything_is_known_of_a_service_nothing_is_hedged(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(hello) as one, http_peer(hello) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller() as mesh:
            await mesh.get("users", "/", hedge=True)
    assert decided(witness, "hedge") == []


@pytest.mark.parametrize(
    "why", ["it is not idempotent", "there is nobody else", "the budget is spent", "its body comes piece by piece"]
)
async def test_nobody_else_is_asked_where(announce: Announce, open_caller: Open, witness: Witness, why: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    async def slow(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response()

    async with http_peer(slow) as one, http_peer(slow) as other:
        announce(one.url, "one")
        if why != "there is nobody else":
            announce(other.url, "other")
        budget = {"retry_share": 0, "retries_per_second": 0} if why == "the budget is spent" else {}
        async with open_caller(**budget) as mesh:
            mesh._targets.of("users").latencies.record(0.001, 0.0)
            method = "POST" if why == "it is not idempotent" else "PUT"
            content = pieces() if why == "its body comes piece by piece" else b"whole"
            await mesh.request(method, "users", "/", content=content, hedge=True)
    assert len(one.requests) + len(other.requests) == 1
    assert decided(witness, "hedge") == (["no_budget"] if why == "the budget is spent" else [])


@pytest.mark.parametrize(
    ("path", "hedge", "hedged"),
    [("/users/7", None, True), ("/users", None, True), ("/usersonly", None, False), ("/users/7", False, False)],
)
async def test_the_settings_say_which_paths_are_hedged_unless_the_caller_does(
    announce: Announce, open_caller: Open, witness: Witness, path: str, hedge: bool | None, hedged: bool
) -> None:
    async def slow(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response()

    async with http_peer(slow) as one, http_peer(slow) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller(services={"users": {"hedge": ["/users"]}}) as mesh:
            mesh._targets.of("users").latencies.record(0.001, 0.0)
            await mesh.get("users", path, hedge=hedge)
    assert ("sent" in decided(witness, "hedge")) is hedged


async def test_a_service_that_always_fails_gets_no_more_for_being_hedged(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async def slowly_unavailable(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0.01)
        return await unavailable(request)

    switched_off = {"breaker": {"enabled": False}, "balancing": {"ejection": False}}
    async with http_peer(slowly_unavailable) as one, http_peer(slowly_unavailable) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller(others=switched_off, retries_per_second=1) as mesh:
            mesh._targets.of("users").latencies.record(0.001, 0.0)
            for _ in range(10):
                await asyncio.gather(*(mesh.get("users", "/", hedge=True) for _ in range(20)))
    # 200 calls: 40 repetitions, and those that the floor had in store.
    assert 200 < len(one.requests) + len(other.requests) <= 200 + 40 + 25
