"""Weights, versions, zones, sandboxes and sticky keys: what somebody is due, whatever it costs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.mesh.balancing.balancer import Outcome, Policy
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule
from app.settings import StrategyName
from tests.mesh.balancing.stage import QUICK_SECONDS, Stage, peer

PLAIN = Policy(slow_start_seconds=0)


def canary(**shares: float) -> Rule:
    return Rule("users", 1, shares=tuple(shares.items()))


def stage_of(*peers: Instance | str, rule: Rule | None = None, policy: Policy = PLAIN, zone: str = "") -> Stage:
    stage = Stage(policy, zone)
    stage.enter(*peers, rule=rule)
    return stage


def versions(stage: Stage, n: int) -> Counter[str]:
    picked: Counter[str] = Counter()
    for name, times in stage.spread(n).items():
        picked[stage.peers[name].version] += times
    return picked


# ------------------------------------------------------------------------------------- weights


def test_a_weight_shifts_what_is_in_flight() -> None:
    stage = stage_of(peer("heavy", weight=4.0), "light")
    for name in ("heavy", "light"):
        stage.ask(name)
    held = Counter(stage.pick().peer.id for _ in range(200))
    assert held["heavy"] == pytest.approx(160, abs=12)


@pytest.mark.parametrize("strategy", ["p2c", "least", "round_robin"])
@pytest.mark.parametrize("weights", [(4.0, 1.0), (1.0, 0.1), (2.0, 1.0, 1.0), (100.0, *([1.0] * 100))])
def test_of_equals_each_gets_its_weight_s_share_however_little_there_is_to_do(
    strategy: StrategyName, weights: tuple[float, ...]
) -> None:
    policy = Policy(slow_start_seconds=0, strategy=strategy, idle_seconds=1e9)
    stage = stage_of(*(peer(f"p{n}", weight=weight) for n, weight in enumerate(weights)), policy=policy)
    for name in stage.peers:
        stage.ask(name)
    picked = stage.spread(8000)
    due = weights[0] / sum(weights)
    # By cost, nobody is quite like another for long.
    assert picked["p0"] / 8000 == pytest.approx(due, abs=0.15 if strategy == "p2c" else 0.04)
    assert stage.seen("p0").share == pytest.approx(due)


def test_a_bad_peer_with_a_weight_gets_less_than_its_share() -> None:
    stage = stage_of(peer("bad", weight=1.0), peer("good", weight=2.0))
    picked = stage.serve({"bad": 0.1, "good": 0.01}, 2000)
    assert picked["bad"] < 200


def test_a_rule_s_weight_takes_the_place_of_the_peer_s_own() -> None:
    stage = stage_of(peer("a", weight=5.0), "b")
    stage.enter(peer("a", weight=5.0), "b", rule=Rule("users", 1, weights=(("a", 0.25),)))
    assert (stage.seen("a").weight, stage.seen("a").share) == (0.25, 0.2)
    stage.enter(peer("a", weight=5.0), "b", rule=Rule("users", 2, weights=(("a", 0.0),)))
    assert set(stage.spread(50)) == {"b"}
    stage.enter(peer("a", weight=0.0), "b", rule=Rule("users", 3, weights=(("a", 1.0),)))
    assert stage.seen("a").share == 0.5


# ------------------------------------------------------------------------------------- versions


@given(share=st.floats(0.01, 0.99), old=st.integers(1, 5), new=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_version_gets_exactly_its_share_whatever_its_peers_cost(share: float, old: int, new: int, seed: int) -> None:
    stage = Stage(PLAIN, seed=seed)
    there = [peer(f"old{n}", version="v1") for n in range(old)] + [peer(f"new{n}", version="v2") for n in range(new)]
    stage.enter(*there, rule=canary(v2=share))
    n = 500
    seconds = {one.id: QUICK_SECONDS if one.version == "v1" else 20 * QUICK_SECONDS for one in there}
    picked = sum(times for name, times in stage.serve(seconds, n).items() if name.startswith("new"))
    # Five standard deviations of so many independent draws.
    assert abs(picked - share * n) <= 5 * (n * share * (1 - share)) ** 0.5 + 1
    assert sum(stage.seen(f"new{k}").share for k in range(new)) == pytest.approx(share)


def test_five_percent_are_five_percent() -> None:
    stage = stage_of(
        *(peer(f"old{n}", version="v1") for n in range(3)), peer("new", version="v2"), rule=canary(v2=0.05)
    )
    assert versions(stage, 20_000)["v2"] == pytest.approx(1000, abs=150)


def test_without_a_rule_versions_do_not_matter() -> None:
    stage = stage_of(peer("a", version="v1"), peer("b", version="v2"))
    assert versions(stage, 2000)["v2"] == pytest.approx(1000, abs=200)


def test_versions_that_no_rule_names_share_the_rest() -> None:
    there = [peer("a", version="v1"), peer("b", version="v2"), peer("c", version="v3")]
    stage = stage_of(*there, rule=canary(v3=0.5))
    assert [round(stage.seen(name).share, 3) for name in "abc"] == [0.25, 0.25, 0.5]


def test_a_rule_is_obeyed_as_soon_as_it_changes() -> None:
    there = [peer("a", version="v1"), peer("b", version="v2")]
    stage = stage_of(*there, rule=canary(v2=0.05))
    stage.enter(*there, rule=Rule("users", 2, shares=(("v2", 1.0),)))
    assert set(versions(stage, 100)) == {"v2"}
    stage.enter(*there, rule=Rule("users", 3, shares=(("v2", 0.0),)))
    assert set(versions(stage, 100)) == {"v1"}
    stage.enter(*there)
    assert stage.seen("a").share == 0.5


def test_a_version_without_a_share_is_the_last_resort() -> None:
    stage = stage_of(peer("a", version="v2"), rule=canary(v2=0.0))
    assert stage.ask() == "a"


@pytest.mark.parametrize("shares", [{"v1": 0.2, "v2": 0.2}, {"v1": 1.0, "v2": 1.0}])
def test_shares_that_do_not_add_up_are_taken_in_proportion(shares: dict[str, float]) -> None:
    stage = stage_of(peer("a", version="v1"), peer("b", version="v2"), rule=canary(**shares))
    assert stage.seen("a").share == stage.seen("b").share == 0.5


def test_the_share_of_a_version_that_nobody_runs_falls_to_the_rest() -> None:
    stage = stage_of(peer("a", version="v1"), peer("b", version="v1"), rule=canary(v2=0.5))
    assert stage.seen("a").share == 0.5
    assert stage.decisions == []


def test_the_share_of_a_version_that_is_out_falls_to_the_rest_and_that_is_said_once() -> None:
    stage = stage_of(peer("a", version="v1"), peer("b", version="v2"), rule=canary(v2=0.5))
    stage.eject("b")
    assert set(versions(stage, 100)) == {"v1"}
    assert stage.seen("a").share == 1.0
    fallen = [one for one in stage.decisions if one.kind == "fallback"]
    assert [(one.service, one.outcome, one.detail) for one in fallen] == [("users", "version_share", "v2")]
    stage.wait(5.0)
    assert versions(stage, 1000)["v2"] > 400
    stage.eject("b")
    versions(stage, 100)
    assert sum(one.kind == "fallback" for one in stage.decisions) == 2


def test_with_all_versions_out_nobody_takes_over() -> None:
    stage = stage_of(peer("a", version="v1"), peer("b", version="v2"), rule=canary(v2=0.5))
    stage.eject("a")
    stage.eject("b")
    before = sum(one.kind == "fallback" for one in stage.decisions)
    for _ in range(20):
        stage.ask(outcome=Outcome.FAILED, seconds=0.0)
    assert sum(one.kind == "fallback" for one in stage.decisions) == before


def test_a_second_attempt_may_go_to_another_version() -> None:
    stage = stage_of(peer("a", version="v1"), peer("b", version="v2"), rule=canary(v2=0.99))
    assert {stage.ask(tried=("b",)) for _ in range(20)} == {"a"}


# ------------------------------------------------------------------------------------- zones


def two_zones(near: int, far: int, zone: str = "east") -> Stage:
    return stage_of(
        *(peer(f"near{n}", zone="east") for n in range(near)),
        *(peer(f"far{n}", zone="west") for n in range(far)),
        zone=zone,
    )


def in_zone(stage: Stage, n: int, zone: str = "east") -> float:
    return sum(times for name, times in stage.spread(n).items() if stage.peers[name].zone == zone) / n


def test_requests_stay_in_their_zone() -> None:
    stage = two_zones(3, 7)
    assert in_zone(stage, 500) == 1.0
    assert stage.seen("far0").share == 0.0
    assert stage.seen("near0").share == pytest.approx(1 / 3)


@pytest.mark.parametrize("zone", ["", "north"])
def test_who_has_no_zone_or_nobody_in_it_calls_everybody(zone: str) -> None:
    assert 0.3 < in_zone(two_zones(3, 3, zone), 1000) < 0.7


def test_one_that_is_out_of_four_makes_nobody_leave_the_zone() -> None:
    stage = two_zones(4, 4)
    stage.eject("near0")
    assert in_zone(stage, 200) == 1.0


def test_with_fewer_in_the_zone_the_rest_spills_over_in_proportion() -> None:
    stage = two_zones(4, 4)
    for name in ("near0", "near1"):
        stage.balancer.avoid(name, 1e6, "gone")
    stay = 0.5 / 0.7
    assert in_zone(stage, 4000) == pytest.approx(stay, abs=0.04)
    assert stage.seen("near2").share == pytest.approx(stay / 2)
    assert stage.seen("far0").share == pytest.approx((1 - stay) / 4)


def test_with_nobody_left_in_the_zone_everything_spills_over() -> None:
    stage = two_zones(2, 2)
    stage.balancer.avoid("near0", 1e6, "gone")
    stage.balancer.avoid("near1", 1e6, "gone")
    assert in_zone(stage, 100) == 0.0


def test_with_nobody_elsewhere_nothing_spills_over() -> None:
    stage = two_zones(4, 1)
    for name in ("near0", "near1", "far0"):
        stage.balancer.avoid(name, 1e6, "gone")
    assert in_zone(stage, 100) == 1.0
    assert stage.seen("near2").share == 0.5


def test_a_second_attempt_leaves_the_zone_before_it_repeats_itself() -> None:
    stage = two_zones(1, 1)
    assert stage.ask(tried=("near0",)) == "far0"


# ------------------------------------------------------------------------------------- sandboxes


def test_a_request_with_a_sandbox_goes_to_its_instances_and_no_other_request_does() -> None:
    stage = stage_of("a", "b", peer("x", sandbox="feature-x"), peer("y", sandbox="feature-y"))
    assert set(stage.spread(100, sandbox="feature-x")) == {"x"}
    assert set(stage.spread(100)) == {"a", "b"}
    assert set(stage.spread(100, sandbox="nobody-s")) == {"a", "b"}
    assert [one.id for one in stage.balancer.explain("users", sandbox="feature-x")] == ["x"]


def test_a_sandbox_without_a_ready_instance_gets_the_ordinary_ones() -> None:
    stage = stage_of("a", peer("x", sandbox="feature-x", state="draining"))
    assert set(stage.spread(10, sandbox="feature-x")) == {"a"}


def test_a_sandbox_whose_instance_is_out_still_gets_only_that() -> None:
    stage = stage_of("a", peer("x", sandbox="feature-x"))
    pick = stage.balancer.pick("users", sandbox="feature-x")
    assert pick is not None
    stage.balancer.avoid("x", 60.0, "draining")
    assert set(stage.spread(10, sandbox="feature-x")) == {"x"}


def test_a_service_that_is_only_in_a_sandbox_is_nowhere_for_others() -> None:
    stage = stage_of(peer("x", sandbox="feature-x"))
    assert stage.balancer.pick("users") is None


def test_a_rule_about_versions_is_no_matter_of_a_sandbox() -> None:
    there = [peer("a", version="v1"), peer("x", version="v2", sandbox="x"), peer("y", version="v3", sandbox="x")]
    stage = stage_of(*there, rule=canary(v2=0.0))
    assert set(stage.spread(200, sandbox="x")) == {"x", "y"}


# ------------------------------------------------------------------------------------- sticky keys

KEYS = [f"user-{n}" for n in range(1000)]
names = st.sets(st.integers(0, 50), min_size=2, max_size=12)


def places(stage: Stage) -> dict[str, str]:
    return {key: stage.ask(key=key) for key in KEYS[:50]}


@given(numbers=names, newcomer=st.integers(51, 60))
def test_when_somebody_joins_keys_move_to_the_newcomer_only(numbers: set[int], newcomer: int) -> None:
    stage = stage_of(*(f"p{n}" for n in numbers))
    before = places(stage)
    stage.enter(*(f"p{n}" for n in {*numbers, newcomer}))
    after = places(stage)
    assert {after[key] for key in before if after[key] != before[key]} <= {f"p{newcomer}"}


@given(numbers=names, data=st.data())
def test_when_somebody_leaves_or_is_out_only_its_own_keys_move(numbers: set[int], data: st.DataObject) -> None:
    stage = stage_of(*(f"p{n}" for n in numbers))
    before = places(stage)
    lost = f"p{data.draw(st.sampled_from(sorted(numbers)))}"
    if data.draw(st.booleans()):
        stage.enter(*(f"p{n}" for n in numbers if f"p{n}" != lost))
    else:
        stage.balancer.avoid(lost, 1e9, "gone")
    after = places(stage)
    assume(lost in before.values())
    assert all((after[key] != before[key]) == (before[key] == lost) for key in before)
    stage.enter(*(f"p{n}" for n in numbers))


def test_another_process_sends_a_key_to_the_same_peer() -> None:
    there = [f"p{n}" for n in range(5)]
    assert places(stage_of(*there)) == places(stage_of(*reversed(there)))


def test_keys_are_spread_by_weight() -> None:
    stage = stage_of(peer("a", weight=3.0), "b")
    stage_places = Counter(stage.ask(key=key) for key in KEYS)
    assert stage_places["a"] == pytest.approx(750, abs=60)


def test_a_key_stays_with_its_version_and_versions_get_their_share_of_the_keys() -> None:
    there = [peer("a", version="v1"), peer("b", version="v1"), peer("c", version="v2")]
    stage = stage_of(*there, rule=canary(v2=0.2))
    first = {key: stage.ask(key=key) for key in KEYS}
    assert Counter(first.values())["c"] == pytest.approx(200, abs=50)
    assert {key: stage.ask(key=key) for key in KEYS} == first


def test_a_key_whose_best_peers_are_all_out_or_tried_still_finds_one() -> None:
    stage = stage_of(*(f"p{n}" for n in range(10)))
    order: list[str] = []
    for _ in range(10):
        order.append(stage.ask(key="k", tried=order))
    assert len(set(order)) == 10
    for name in order[:9]:
        stage.balancer.avoid(name, 1e6, "gone")
    assert stage.ask(key="k") == order[9]
    stage.balancer.avoid(order[9], 1e6, "gone")
    assert stage.ask(key="k") == order[0]


def test_what_is_remembered_of_keys_is_bounded() -> None:
    stage = stage_of("a", "b")
    for number in range(10_000):
        stage.ask(key=str(number))
    (pool,) = stage.balancer._pools.values()
    assert pool.only is not None
    assert len(pool.only._ranks) <= 4096


# ------------------------------------------------------------------------------------- strategies


def test_round_robin_takes_turns() -> None:
    stage = stage_of("a", "b", "c", policy=Policy(strategy="round_robin"))
    assert [stage.ask() for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_least_looks_only_at_what_is_in_flight() -> None:
    stage = stage_of("a", "b", policy=Policy(strategy="least"))
    stage.serve({"a": 1.0, "b": 0.01}, 20)
    held = Counter(stage.pick().peer.id for _ in range(20))
    assert held == {"a": 10, "b": 10}


def test_a_service_may_have_a_strategy_of_its_own() -> None:
    stage = stage_of(
        "a", "b", "c", peer("d", service="orders"), policy=Policy(strategies={"users": "round_robin"}, strategy="least")
    )
    assert [stage.ask() for _ in range(3)] == ["a", "b", "c"]
    assert type(stage.balancer._pools["orders", None].strategy).__name__ == "LeastInFlight"


def test_rendezvous_without_a_key_balances() -> None:
    stage = stage_of("a", "b", policy=Policy(strategy="rendezvous"))
    assert stage.serve({"a": 0.1, "b": 0.01}, 1000)["b"] > 900
