"""Picking, with a clock that is moved and dice that are known."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from app.mesh.balancing.balancer import Balancer, Outcome, Policy
from app.mesh.registry.rules import Rule
from app.mesh.registry.view import Table
from tests.mesh.balancing.stage import Stage, peer, table_of

# What is tested here is the choice among those that are in, as soon as they are there.
PLAIN = Policy(ejection=None, breaker=None, slow_start_seconds=0)
SLOW_AND_QUICK = {"slow": 0.1, "quick": 0.01}


@pytest.fixture
def stage() -> Stage:
    made = Stage(PLAIN)
    made.enter("slow", "quick")
    return made


def fail(stage: Stage, error: type[BaseException], *, keep: bool = False) -> None:
    """A block that ends by `error`."""

    def work() -> None:
        with stage.pick() as pick:
            assert stage.balancer.in_flight == 1
            if keep:
                pick.keep()
            raise error

    with pytest.raises(error):
        work()


def test_of_nobody_nobody_is_picked() -> None:
    balancer = Balancer()
    assert balancer.pick("users") is None
    balancer.update(table_of(peer("a", state="draining"), peer("b", weight=0.0), peer("c", service="orders")))
    assert balancer.pick("users") is None
    assert balancer.explain("users") == ()
    assert not balancer.has_other("users", tried=())


def test_the_only_one_is_picked_even_if_it_was_tried(stage: Stage) -> None:
    stage.enter("quick")
    assert stage.ask() == "quick"
    assert stage.ask(tried=("quick",)) == "quick"


def test_who_was_tried_is_left_out(stage: Stage) -> None:
    assert {stage.ask(tried=("slow",)) for _ in range(50)} == {"quick"}
    assert {stage.ask(tried=("slow", "quick")) for _ in range(50)} == {"slow", "quick"}


def test_who_is_not_ready_is_not_picked(stage: Stage) -> None:
    stage.enter(peer("slow", state="draining"), "quick")
    assert set(stage.spread(100)) == {"quick"}
    assert [one.id for one in stage.balancer.explain("users")] == ["quick"]


def test_who_has_left_is_not_picked(stage: Stage) -> None:
    stage.enter("quick")
    assert set(stage.spread(100)) == {"quick"}
    stage.balancer.update(Table())
    assert stage.balancer.pick("users") is None


def test_services_do_not_mix(stage: Stage) -> None:
    stage.enter("quick", peer("other", service="orders"))
    assert set(stage.spread(100)) == {"quick"}
    assert stage.balancer.pick("orders").peer.id == "other"  # type: ignore[union-attr]


def test_the_faster_one_gets_nearly_everything(stage: Stage) -> None:
    picked = stage.serve(SLOW_AND_QUICK, 10_000)
    # One turn in ten seconds, since it is ten times slower; none, and nobody would notice that it has become quick.
    assert 5 <= picked["slow"] <= 20


def test_a_slow_one_that_becomes_quick_gets_its_share_again(stage: Stage) -> None:
    stage.serve(SLOW_AND_QUICK, 1000)
    stage.spread(10_000)
    assert stage.spread(1000)["slow"] > 200


def test_of_equals_the_one_with_fewer_in_flight_is_picked(stage: Stage) -> None:
    stage.spread(100)
    held = [stage.pick("slow") for _ in range(5)]
    assert stage.ask() == "quick"
    assert len(held) == 5


def test_equals_share_evenly(stage: Stage) -> None:
    stage.enter(*(f"p{n}" for n in range(5)))
    picked = stage.spread(5000)
    assert len(picked) == 5
    assert min(picked.values()) > 500


def test_failing_fast_does_not_look_like_being_fast(stage: Stage) -> None:
    stage.enter("bad", "good")
    picked: Counter[str] = Counter()
    for _ in range(1000):
        with stage.pick() as pick:
            bad = pick.peer.id == "bad"
            stage.wait(0.0001 if bad else 0.05)
            pick.settle(Outcome.FAILED if bad else Outcome.OK)
        picked[pick.peer.id] += 1
    # 50 s have passed: once at first, then a trial every failing_idle_seconds.
    assert picked["bad"] <= 12


def test_a_slow_peer_does_not_live_on_failing_ones(stage: Stage) -> None:
    good = [f"good{n}" for n in range(5)]
    stage.enter("slow", "bad", "worse", *good)
    for name in ("slow", *good):
        stage.ask(name, seconds=0.1 if name == "slow" else 0.001)
    stage.fail("bad")
    stage.fail("worse")
    # Of 28 pairs, two are the slow one and a failing one.
    assert stage.serve({"slow": 0.1} | dict.fromkeys(("bad", "worse", *good), 0.001), 400)["slow"] < 14


def test_one_that_has_failed_is_as_good_as_ever_after_its_first_success(stage: Stage) -> None:
    stage.fail("slow")
    stage.ask("slow")
    stage.ask("quick")
    assert stage.spread(1000)["slow"] > 300


def test_a_failure_is_never_cheaper_than_what_was_before(stage: Stage) -> None:
    stage.ask("slow", seconds=20.0)
    stage.fail("slow")
    assert stage.seen("slow").cost_seconds == pytest.approx(20.0)


def test_rejecting_fast_does_not_look_like_being_fast(stage: Stage) -> None:
    picked: Counter[str] = Counter()
    for _ in range(1000):
        with stage.pick() as pick:
            busy = pick.peer.id == "slow"
            stage.wait(0.0001 if busy else 0.01)
            pick.settle(Outcome.REJECTED if busy else Outcome.OK)
        picked[pick.peer.id] += 1
    assert picked["slow"] < 200


def test_a_new_peer_is_tried_at_once_but_with_one_request_only(stage: Stage) -> None:
    stage.enter("quick")
    stage.spread(10)
    stage.enter("quick", "new")
    held = [stage.pick() for _ in range(20)]
    assert Counter(pick.peer.id for pick in held)["new"] == 1


def test_a_restarted_peer_starts_afresh(stage: Stage) -> None:
    stage.fail("slow")
    stage.ask("quick")
    stage.enter(peer("slow", generation=2), "quick")
    assert stage.ask() == "slow"


def test_a_changed_record_of_the_same_process_changes_nothing_that_is_known(stage: Stage) -> None:
    stage.fail("slow")
    stage.ask("quick")
    before = stage.seen("slow")
    stage.enter(peer("slow", openapi_digest="abc"), "quick")
    assert stage.seen("slow") == before


def test_the_result_of_a_request_to_the_process_before_says_nothing_about_the_one_after(stage: Stage) -> None:
    old = stage.pick("slow")
    stage.enter(peer("slow", generation=2), "quick")
    old.settle(Outcome.FAILED)
    old.release()
    assert stage.seen("slow").state == "ok, not asked yet"
    assert stage.balancer.in_flight == 0


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
def test_whatever_ends_the_block_it_is_released(stage: Stage, error: type[BaseException]) -> None:
    fail(stage, error)
    assert stage.balancer.in_flight == 0


def test_releasing_twice_counts_once(stage: Stage) -> None:
    with stage.pick() as pick:
        pick.release()
    assert stage.balancer.in_flight == 0


def test_settling_twice_counts_once(stage: Stage) -> None:
    with stage.pick("slow") as pick:
        stage.wait(0.01)
        assert pick.settle() == pytest.approx(0.01)
        stage.wait(5.0)
        assert pick.settle(Outcome.FAILED) == pytest.approx(5.01)
    assert stage.seen("slow").cost_seconds == pytest.approx(0.01)


def test_a_kept_pick_stays_in_flight_until_it_is_released(stage: Stage) -> None:
    with stage.pick("slow") as pick:
        pick.keep()
    assert stage.seen("slow").in_flight == stage.balancer.in_flight == 1
    pick.release()
    assert stage.seen("slow").in_flight == stage.balancer.in_flight == 0


def test_a_kept_pick_is_released_if_its_block_fails_after_all(stage: Stage) -> None:
    fail(stage, RuntimeError, keep=True)
    assert stage.balancer.in_flight == 0


def test_a_call_that_is_given_up_late_shows_that_its_peer_is_slow(stage: Stage) -> None:
    stage.spread(100)
    stage.give_up("slow", 5.0)
    assert stage.spread(50)["quick"] > 45


def test_calls_that_are_given_up_early_do_not_show_that_their_peer_is_quick(stage: Stage) -> None:
    stage.ask("slow", seconds=1.0)
    for _ in range(1000):
        stage.give_up("slow", 0.001)
        stage.wait(0.1)
    stage.ask("quick")
    assert stage.serve({"slow": 1.0, "quick": 0.01}, 50)["quick"] > 45


def test_an_outcome_that_says_nothing_says_nothing(stage: Stage) -> None:
    stage.ask("slow")
    with stage.pick("slow") as pick:
        stage.wait(0.005)
        pick.settle(None)
    assert stage.seen("slow").cost_seconds == pytest.approx(0.01)


def test_peers_that_have_gone_are_forgotten_but_not_while_something_is_in_flight_there(stage: Stage) -> None:
    with stage.pick("slow"):
        stage.balancer.update(Table())
        assert repr(stage.balancer) == "<Balancer 1 peers, 1 in flight>"
    stage.balancer.update(Table())
    assert repr(stage.balancer) == "<Balancer 0 peers, 0 in flight>"


def test_an_old_peak_is_forgotten_with_time(stage: Stage) -> None:
    stage.ask("slow", seconds=1.0)
    stage.ask("quick", seconds=0.1)
    for _ in range(600):
        stage.ask("slow", seconds=0.1)
    assert stage.serve({"slow": 0.1, "quick": 0.1}, 1000)["slow"] > 300


def test_requests_in_flight_count_as_slow_for_as_long_as_they_get_no_answer(stage: Stage) -> None:
    stage.spread(100)
    held = stage.pick("slow")
    score = stage.seen("slow").score
    stage.wait(0.5)
    assert stage.seen("slow").score == pytest.approx(1.0)
    assert score < 0.1
    held.settle()
    held.keep()
    stage.wait(60.0)
    # Its head has come; that its body is still under way is no silence.
    assert stage.seen("slow").score == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- what others ask


def test_the_last_success_of_a_peer_is_known(stage: Stage) -> None:
    assert stage.balancer.last_success("slow") is None
    assert stage.balancer.last_success("stranger") is None
    stage.ask("slow")
    at = stage.clock.now
    stage.fail("slow")
    stage.give_up("slow")
    assert stage.balancer.last_success("slow") == at


def test_it_is_known_whether_there_is_somebody_else_to_ask(stage: Stage) -> None:
    assert stage.balancer.has_other("users", tried=("slow",))
    assert not stage.balancer.has_other("users", tried=("slow", "quick"))
    stage.balancer.avoid("quick", 5.0, "draining")
    assert not stage.balancer.has_other("users", tried=("slow",))
    assert not stage.balancer.has_other("strangers", tried=())


def test_an_avoided_peer_is_asked_only_after_the_others(stage: Stage) -> None:
    stage.balancer.avoid("slow", 5.0, "draining")
    assert set(stage.spread(100)) == {"quick"}
    assert stage.seen("slow").state == "avoided for 4.0 s: draining"
    with stage.pick(tried=("quick",)) as pick:
        assert (pick.peer.id, pick.in_panic) == ("slow", False)
    stage.wait(5.0)
    assert stage.ask("slow") == "slow"
    assert stage.seen("slow").state == "ok"
    stage.balancer.avoid("stranger", 5.0, "draining")


def test_of_two_reasons_to_avoid_a_peer_the_longer_one_counts(stage: Stage) -> None:
    stage.balancer.avoid("slow", 5.0, "draining")
    stage.balancer.avoid("slow", 1.0, "misdirected")
    assert stage.seen("slow").state == "avoided for 5.0 s: draining"


def test_the_candidates_tell_between_whom_is_decided() -> None:
    stage = Stage(PLAIN)
    stage.enter(peer("a", version="v1", zone="east", weight=3.0, url="http://10.0.0.1:1"), peer("b"))
    stage.ask("a", seconds=0.2)
    held = stage.pick("a")
    one, other = stage.balancer.explain("users")
    assert (one.id, one.url, one.version, one.zone, one.weight) == ("a", "http://10.0.0.1:1", "v1", "east", 3.0)
    assert (one.cost_seconds, one.in_flight, one.score) == pytest.approx((0.2, 1, 0.4))
    assert (one.share, other.share) == (0.75, 0.25)
    assert (one.state, other.state) == ("ok", "ok, not asked yet")
    held.release()
    assert stage.balancer.explain("strangers") == ()


def test_a_rule_counts_also_where_nobody_has_come_or_gone() -> None:
    stage = Stage(PLAIN)
    table = table_of(peer("a"), peer("b"))
    stage.balancer.update(table)
    stage.balancer.update(replace(table, rules={"users": Rule("users", 1, weights=(("a", 3.0),))}))
    assert stage.seen("a").share == 0.75
    stage.balancer.update(table)
    assert stage.seen("a").share == 0.5


def test_a_service_that_did_not_change_is_not_sorted_anew() -> None:
    balancer = Balancer(PLAIN, rng=random.Random(7))
    table = table_of(peer("a"), peer("b"), peer("c", service="orders"))
    balancer.update(table)
    users, orders = balancer._pools["users", None], balancer._pools["orders", None]
    changed = replace(table, instances={**table.instances, "orders": (peer("d", service="orders"),)})
    balancer.update(changed)
    assert balancer._pools["users", None] is users
    assert balancer._pools["orders", None] is not orders
