"""How a call tells how it came to its answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from app.errors import CircuitOpen, DeadlineExceeded, NoInstance, PeerUnreachable
from app.mesh import Trace
from tests.mesh.actors import Witness, http_peer, refused_url
from tests.mesh.calling.scenes import Announce, Open, forever, hello, key_for, unavailable


async def test_a_story_names_candidates_registry_breaker_budget_and_every_attempt(
    announce: Announce, open_caller: Open
) -> None:
    async with http_peer(hello) as peer:
        announce(await refused_url(), "dead", version="v1")
        announce(peer.url, "alive", version="v2")
        async with open_caller() as mesh:
            trace = Trace()
            await mesh.post("users", "/7?x=1", sticky=key_for(mesh, "dead"), timeout=5, explain=trace)
            story = trace.story
            position = mesh.directory.position
    assert (story.method, story.service, story.path, story.outcome) == ("POST", "users", "/7?x=1", "status 200")
    assert [(peer["id"], peer["version"]) for peer in story.candidates] == [("alive", "v2"), ("dead", "v1")]
    age = story.registry["age_seconds"]
    assert story.registry == {"healthy": True, "age_seconds": age, "epoch": position.epoch, "seq": position.seq}
    assert 0 <= age < 60
    assert story.breaker.startswith("closed")
    assert (story.repetitions_left, story.allowed_seconds) == (100.0, 5.0)
    first, second = story.attempts
    assert (first.number, first.instance, first.outcome, first.kind) == (1, "dead", "peer_unreachable", "unsent")
    assert (second.number, second.instance, second.outcome, second.kind) == (2, "alive", "status 200", "fine")
    assert (first.then, second.then) == ("any peer", "answer")
    assert second.url == peer.url
    assert 0 <= first.after_seconds <= first.after_seconds + first.seconds <= second.after_seconds
    assert second.after_seconds + second.seconds <= story.seconds < 5


async def test_a_story_is_json(announce: Announce, open_caller: Open) -> None:
    async with http_peer(unavailable) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            trace = Trace()
            await mesh.get("users", "/", explain=trace, hedge=True, stale_seconds=5)
            told = json.loads(json.dumps(trace.story.as_dict()))
            json.dumps(mesh.describe())
    assert (told["outcome"], told["attempts"][0]["outcome"], told["attempts"][0]["kind"]) == (
        "status 503",
        "status 503",
        "busy",
    )


async def test_a_failed_call_has_a_story_too(open_caller: Open) -> None:
    async with open_caller() as mesh:
        trace = Trace()
        with pytest.raises(NoInstance):
            await mesh.get("users", "/", explain=trace)
    assert (trace.story.outcome, trace.story.candidates, trace.story.attempts) == ("no_instance", (), ())


async def test_a_story_tells_of_the_second_runner(announce: Announce, open_caller: Open) -> None:
    async with http_peer(forever) as late, http_peer(hello) as quick:
        announce(late.url, "late")
        announce(quick.url, "quick")
        async with open_caller() as mesh:
            mesh._targets.of("users").latencies.record(0.01, 0.0)
            trace = Trace()
            await mesh.get("users", "/", hedge=True, sticky=key_for(mesh, "late"), explain=trace)
    assert [note for _, note in trace.story.notes] == ["hedge: sent", "hedge: won"]
    attempts = [(step.instance, step.outcome, step.then) for step in trace.story.attempts]
    assert attempts == [("late", "cancelled", "nothing"), ("quick", "status 200", "answer")]
    assert trace.story.outcome == "status 200"


async def test_a_story_tells_of_a_shared_flight_and_of_a_fallback(announce: Announce, open_caller: Open) -> None:
    async with http_peer(unavailable) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            traces = [Trace(), Trace()]
            await asyncio.gather(
                *(mesh.get("users", "/", share=True, explain=trace) for trace in traces), return_exceptions=True
            )
    assert [trace.story.notes[0][1] for trace in traces] == ["flight: led", "flight: joined"]
    assert [trace.story.outcome for trace in traces] == ["status 503"] * 2


async def test_every_error_says_which_peer_which_attempt_how_the_breaker_stands_and_what_time_is_left(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    announce(await refused_url(), "dead")
    async with open_caller(others={"balancing": {"ejection": False}}) as mesh:
        with pytest.raises(
            PeerUnreachable, match=r"users, instance dead: no connection \(attempt 4, breaker closed, \d"
        ) as raised:
            await mesh.get("users", "/")
        # What a stranger may read is less.
        assert raised.value.detail == "users: peer unreachable"
        for _ in range(9):
            with pytest.raises(PeerUnreachable):
                await mesh.get("users", "/")
        with pytest.raises(CircuitOpen, match=r"breaker open, (10\.00|9\.\d\d) s left"):
            await mesh.get("users", "/")


async def test_a_late_error_says_that_no_time_is_left(announce: Announce, open_caller: Open) -> None:
    async with http_peer(forever) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            with pytest.raises(DeadlineExceeded, match=r"no reply within 0\.0\d s \(.* 0\.00 s left\)"):
                await mesh.get("users", "/", timeout=0.05)


async def test_a_description_tells_of_every_service_that_was_called(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            assert mesh.describe() == {"services": {}, "in_flight": 0, "flights": 0, "stale_replies": 0}
            await mesh.get("users", "/")
            users = mesh.describe()["services"]["users"]
    assert users["breaker"].startswith("closed")
    assert users["repetitions_left"] == 100.2
    assert 0 < users["median_seconds"] <= users["p99_seconds"]
    assert [peer["id"] for peer in users["peers"]] == ["users-1"]
