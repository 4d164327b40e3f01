"""Who fails, falls silent or asks to be left alone is left alone; somebody is picked nevertheless."""

from __future__ import annotations

import pytest

from app.mesh.balancing import breaker, outlier
from app.mesh.balancing.balancer import Outcome, Pick, Policy
from app.mesh.registry.view import Table
from tests.mesh.balancing.stage import Stage, peer

# Three peers that are in from the start, and no breaker that would take a hand in it.
EJECTION = Policy(breaker=None)


@pytest.fixture
def stage() -> Stage:
    made = Stage(EJECTION)
    made.enter("a", "b", "c")
    return made


def due(stage: Stage, name: str) -> None:
    """Wait until the ejection of `name` is over."""
    endpoint = stage.balancer._endpoints["users", name]
    assert endpoint.outlier is not None
    stage.clock.now = endpoint.outlier.until


def probe(stage: Stage, key: str | None = None) -> Pick:
    pick = stage.pick(key=key)
    assert pick.is_probe
    return pick


def test_an_ejected_peer_gets_nothing(stage: Stage) -> None:
    stage.eject("a")
    assert set(stage.spread(100)) == {"b", "c"}
    assert stage.seen("a").state.startswith("ejected, back in ")
    assert stage.seen("a").state.endswith(" s: 5 failures in a row")
    assert stage.told() == [("ejection", "ejected", "a")]
    assert stage.decisions[0].detail == "5 failures in a row"


def test_two_peers_are_enough_for_an_ejection(stage: Stage) -> None:
    stage.enter("a", "b")
    stage.eject("a")
    assert set(stage.spread(100)) == {"b"}


def test_a_peer_that_fails_every_third_time_is_ejected(stage: Stage) -> None:
    for _ in range(2):
        stage.ask("a")
        stage.ask("a")
        stage.fail("a")
    assert stage.is_out("a")
    assert stage.seen("a").state.endswith("2 of 6 requests failed within 30 s")


def test_after_its_time_exactly_one_request_goes_there_and_the_others_keep_away(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    pick = probe(stage)
    assert pick.peer.id == "a"
    assert repr(pick) == "<Pick a as a probe, in flight>"
    assert stage.seen("a").state == "ejected, probe out: 5 failures in a row"
    assert "a" not in stage.spread(50)
    pick.settle()
    pick.release()
    assert stage.seen("a").state == "slow start 10 %"
    assert stage.told()[1:] == [("ejection", "returned", "a")]
    assert stage.spread(2000)["a"] > 0


def test_a_failed_probe_is_followed_by_a_longer_time_out(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    with probe(stage) as pick:
        pick.settle(Outcome.FAILED)
    assert "a" not in stage.spread(100)
    assert stage.seen("a").state.endswith("its probe failed")
    due(stage, "a")
    probe(stage).settle()
    assert not stage.is_out("a")


def test_a_probe_that_is_given_up_soon_decides_nothing_and_the_next_follows(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    assert stage.give_up() == "a"
    probe(stage).settle()
    assert not stage.is_out("a")


def test_a_probe_that_is_given_up_after_a_long_silence_has_failed(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    assert stage.give_up(seconds=3.0) == "a"
    assert stage.seen("a").state.endswith("its probe failed")


def test_a_rejected_probe_decides_nothing_but_the_next_waits_a_little(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    assert stage.ask(outcome=Outcome.REJECTED) == "a"
    assert "a" not in stage.spread(5)
    stage.wait(0.1)
    assert probe(stage).peer.id == "a"


def test_who_was_tried_already_is_not_probed_by_the_same_call(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    assert not stage.pick(tried=("a",)).is_probe
    assert stage.pick().is_probe


def test_a_sticky_key_of_another_peer_is_not_used_as_a_probe(stage: Stage) -> None:
    keys: dict[str, str] = {}
    for number in range(100):
        keys.setdefault(stage.ask(key=str(number)), str(number))
    stage.eject("a")
    due(stage, "a")
    assert stage.ask(key=keys["b"]) == "b"
    assert probe(stage, key=keys["a"]).peer.id == "a"


def test_with_all_out_one_is_chosen_among_all_and_it_is_said_once(stage: Stage) -> None:
    for name in "abc":
        stage.eject(name)
    with stage.pick() as pick:
        assert pick.in_panic
        assert repr(pick) == f"<Pick {pick.peer.id} in panic, in flight>"
        pick.settle(Outcome.FAILED)
    stage.pick().settle(Outcome.FAILED)
    assert stage.told().count(("ejection", "panic", "")) == 1
    # One that answers is back at once, and the panic is over.
    back = stage.ask()
    assert stage.told()[-1] == ("ejection", "returned", back)
    stage.wait(0.25)
    assert stage.ask() == back
    assert stage.told()[-1] == ("ejection", "calm", "")


def test_failures_in_a_panic_do_not_prolong_it(stage: Stage) -> None:
    for name in "abc":
        stage.eject(name)
    before = [stage.balancer._endpoints["users", name].returns_at(stage.clock.now) for name in "abc"]
    stage.fail(times=50, seconds=0.0)
    assert [stage.balancer._endpoints["users", name].returns_at(stage.clock.now) for name in "abc"] == before


def test_an_avoided_peer_comes_before_an_ejected_one() -> None:
    stage = Stage(Policy(breaker=None, strategy="round_robin"))
    stage.enter("a", "b")
    stage.eject("a")
    stage.balancer.avoid("b", 60.0, "draining")
    for tried in ((), ("a", "b")):
        for _ in range(4):
            with stage.pick(tried=tried) as pick:
                assert (pick.peer.id, pick.in_panic) == ("b", False)


def test_an_ejected_peer_that_is_leaving_is_not_probed(stage: Stage) -> None:
    stage.eject("a")
    stage.balancer.avoid("a", 60.0, "draining")
    due(stage, "a")
    assert set(stage.spread(100)) == {"b", "c"}
    stage.wait(60.0)
    assert probe(stage).peer.id == "a"


def test_a_peer_that_was_not_tried_comes_before_one_that_was_even_if_it_is_out(stage: Stage) -> None:
    stage.enter("a", "b")
    stage.eject("a")
    with stage.pick(tried=("b",)) as pick:
        assert (pick.peer.id, pick.in_panic) == ("a", True)


def test_without_ejection_nobody_is_ejected() -> None:
    stage = Stage(Policy(ejection=None, breaker=None))
    stage.enter("a", "b", "c")
    stage.fail("a", times=100)
    hung = stage.pick("b")
    stage.wait(60.0)
    stage.spread(100)
    stage.wait(1.0)
    stage.spread(100)
    assert hung.peer.id == "b"
    assert stage.told() == []
    assert not any(stage.is_out(name) for name in "abc")


def test_what_is_known_of_an_ejected_peer_survives_its_disappearance(stage: Stage) -> None:
    stage.eject("a")
    stage.enter("b", "c")
    stage.balancer.update(Table())
    stage.enter("a", "b", "c")
    assert stage.is_out("a")
    assert set(stage.spread(50)) == {"b", "c"}


def test_an_ejected_process_that_was_restarted_is_in_again(stage: Stage) -> None:
    stage.eject("a")
    stage.enter(peer("a", generation=2), "b", "c")
    assert not stage.is_out("a")


# ------------------------------------------------------------------------------------- silence


def look_twice(stage: Stage) -> None:
    stage.spread(1)
    stage.wait(0.3)
    stage.spread(1)


def test_a_peer_that_answers_nothing_is_left_alone_at_once_and_ejected_after_a_second(stage: Stage) -> None:
    stage.spread(300)
    hung = [stage.pick("a") for _ in range(3)]
    stage.wait(0.1)
    assert "a" not in stage.spread(50)
    assert not stage.is_out("a")
    stage.wait(0.5)
    look_twice(stage)
    assert stage.is_out("a")
    assert "no answer for 1." in stage.seen("a").state
    assert len(hung) == 3


def test_one_that_speaks_after_all_is_back_at_once(stage: Stage) -> None:
    stage.spread(300)
    hung = stage.pick("a")
    stage.wait(1.1)
    look_twice(stage)
    assert stage.is_out("a")
    hung.settle()
    assert not stage.is_out("a")
    assert stage.told() == [("ejection", "ejected", "a"), ("ejection", "returned", "a")]


def test_a_slow_service_is_given_more_time(stage: Stage) -> None:
    stage.serve(dict.fromkeys("abc", 0.5), 30)
    hung = stage.pick("a")
    stage.wait(4.0)
    look_twice(stage)
    assert not stage.is_out("a")
    stage.wait(1.5)
    look_twice(stage)
    assert stage.is_out("a")
    assert hung.peer.id == "a"


def test_one_slow_answer_among_others_is_no_silence(stage: Stage) -> None:
    stage.spread(300)
    slow = stage.pick("a")
    for _ in range(100):
        stage.wait(0.3)
        stage.ask("a")
    assert not stage.is_out("a")
    assert slow.peer.id == "a"


def test_the_body_of_a_streamed_reply_may_take_its_time(stage: Stage) -> None:
    stage.spread(300)
    with stage.pick("a") as pick:
        pick.settle()
        pick.keep()
    stage.wait(60.0)
    look_twice(stage)
    assert not stage.is_out("a")


def test_a_process_that_stood_still_itself_blames_nobody(stage: Stage) -> None:
    stage.spread(300)
    waiting = [stage.pick(name) for name in "abc"]
    # All answers have come meanwhile; the loop reads them after the first request that it makes.
    stage.wait(30.0)
    stage.ask()
    stage.balancer.avoid("c", 0.01, "as something that makes it look again soon")
    stage.wait(0.01)
    stage.ask(seconds=0.0)
    for pick in waiting:
        pick.settle()
    stage.wait(0.3)
    stage.spread(10)
    assert stage.told() == []


def test_a_silent_probe_is_over_before_its_timeout(stage: Stage) -> None:
    stage.eject("a")
    due(stage, "a")
    probe(stage)
    stage.wait(3.1)
    look_twice(stage)
    assert "no answer for 3" in stage.seen("a").state


def test_what_is_still_silent_from_before_is_not_held_against_a_probe(stage: Stage) -> None:
    stage.spread(300)
    hung = stage.pick("a")
    stage.wait(1.1)
    look_twice(stage)
    due(stage, "a")
    pick = probe(stage)
    stage.wait(0.3)
    look_twice(stage)
    assert stage.seen("a").state.startswith("ejected, probe out")
    pick.settle()
    assert not stage.is_out("a")
    assert hung.peer.id == "a"


def test_who_comes_back_is_measured_afresh(stage: Stage) -> None:
    stage.spread(300)
    hung = [stage.pick("a") for _ in range(5)]
    stage.wait(1.1)
    look_twice(stage)
    stage.wait(20.0)
    for pick in hung[:3]:
        pick.settle()
    hung[3].settle(Outcome.FAILED)
    hung[4].__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    # None of the answers to what hung is how it does now.
    assert stage.seen("a").cost_seconds == EJECTION.unknown_seconds
    stage.ask("a", seconds=0.02)
    assert stage.seen("a").cost_seconds == pytest.approx(0.02)


def test_how_long_its_probe_took_is_not_how_it_does_now(stage: Stage) -> None:
    stage.spread(300)
    stage.pick("a")
    stage.wait(1.1)
    look_twice(stage)
    due(stage, "a")
    with probe(stage):
        stage.wait(0.9)
    stage.ask("a", seconds=0.02)
    assert stage.seen("a").cost_seconds == pytest.approx(0.02)


# ------------------------------------------------------------------------------------- slow start


def test_a_peer_that_joins_gets_a_tenth_at_first_and_all_of_its_share_after_a_while() -> None:
    stage = Stage(EJECTION)
    stage.enter("a", "b", "c")
    stage.spread(300)
    stage.enter("a", "b", "c", "new")
    assert stage.seen("new").state == "slow start 10 %"
    assert stage.seen("new").share == pytest.approx(0.1 / 3.1)
    early = stage.spread(200)["new"]
    assert 1 <= early <= 30
    stage.wait(3.0)
    stage.spread(1)
    assert stage.seen("new").state == "slow start 50 %"
    stage.wait(6.0)
    stage.spread(1)
    assert stage.seen("new").state == "ok"
    assert stage.spread(2000)["new"] > 300


def test_a_new_peer_does_not_get_every_request_only_because_it_is_idle() -> None:
    stage = Stage(EJECTION)
    stage.enter("a")
    stage.spread(100)
    stage.enter("a", "new")
    held = [stage.pick() for _ in range(100)]
    assert sum(pick.peer.id == "new" for pick in held) <= 15


def test_who_is_there_from_the_start_is_not_slowed_down(stage: Stage) -> None:
    assert {one.state for one in stage.balancer.explain("users")} == {"ok, not asked yet"}
    assert min(stage.spread(3000).values()) > 500


def test_one_that_becomes_ready_starts_slowly_too() -> None:
    stage = Stage(EJECTION)
    stage.enter("a", peer("new", state="starting"))
    stage.spread(10)
    stage.enter("a", peer("new"))
    assert stage.seen("new").state == "slow start 10 %"


def test_with_everybody_new_nobody_is_slowed_down() -> None:
    stage = Stage(EJECTION)
    stage.enter("a")
    stage.enter("b", "c")
    assert stage.seen("b").share == stage.seen("c").share == 0.5


# ------------------------------------------------------------------------------------- the breaker of a peer


@pytest.fixture
def slow_stage() -> Stage:
    """Where calls of 2 s and more are slow."""
    made = Stage(Policy(ejection=outlier.Policy(), breaker=breaker.Policy(slow_seconds=2.0), strategy="round_robin"))
    made.enter("a", "b", "c")
    return made


def test_the_breaker_of_a_peer_that_is_slow_opens_and_it_is_left_alone(slow_stage: Stage) -> None:
    slow_stage.ask("a", seconds=2.0)
    for _ in range(9):
        held = slow_stage.pick("a")
        held.started_at -= 2.0
        held.settle()
    assert slow_stage.seen("a").state.startswith("breaker open, probe in ")
    assert set(slow_stage.spread(100)) == {"b", "c"}
    assert slow_stage.told() == [("breaker", "open", "a")]


def test_its_probes_close_it(slow_stage: Stage) -> None:
    test_the_breaker_of_a_peer_that_is_slow_opens_and_it_is_left_alone(slow_stage)
    slow_stage.wait(5.0)
    probes = [slow_stage.pick() for _ in range(3)]
    assert {pick.peer.id for pick in probes} == {"a"}
    assert all(pick.is_probe for pick in probes)
    assert slow_stage.seen("a").state == "breaker half open, 0 of 3 probes went well, 3 out"
    assert "a" not in slow_stage.spread(10)
    probes.pop().__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    probes.append(slow_stage.pick())
    assert probes[-1].is_probe
    for pick in probes:
        slow_stage.wait(0.01)
        pick.settle()
        pick.release()
    assert slow_stage.seen("a").state == "slow start 10 %"
    assert slow_stage.told() == [("breaker", state, "a") for state in ("open", "half_open", "closed")]


def test_its_probes_that_do_not_come_back_open_it_again(slow_stage: Stage) -> None:
    test_the_breaker_of_a_peer_that_is_slow_opens_and_it_is_left_alone(slow_stage)
    slow_stage.balancer._endpoints["users", "a"].outlier = None
    slow_stage.wait(5.0)
    assert all(slow_stage.pick().is_probe for _ in range(3))
    slow_stage.wait(30.0)
    slow_stage.spread(1)
    assert slow_stage.seen("a").state.endswith("a probe did not come back")


def test_a_panic_does_not_close_a_breaker_before_its_time(slow_stage: Stage) -> None:
    test_the_breaker_of_a_peer_that_is_slow_opens_and_it_is_left_alone(slow_stage)
    slow_stage.enter("a")
    with slow_stage.pick() as pick:
        assert pick.in_panic
    assert slow_stage.seen("a").state.startswith("breaker open")
    guard = slow_stage.balancer._endpoints["users", "a"].breaker
    assert guard is not None
    before = guard.opens_at(slow_stage.clock.now)
    slow_stage.fail(times=20, seconds=0.0)
    assert guard.opens_at(slow_stage.clock.now) == before
