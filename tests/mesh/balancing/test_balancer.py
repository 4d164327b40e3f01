"""Picking, with a clock that is moved and dice that are known."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from app.mesh.balancing.balancer import Balancer, Policy
from app.mesh.registry.record import Instance
from tests.mesh.actors import instance

SLOW, QUICK = instance(id="slow"), instance(id="quick")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def balancer(clock: Clock) -> Balancer:
    return Balancer(clock=clock, rng=random.Random(7))


def serve(
    balancer: Balancer, clock: Clock, peers: tuple[Instance, ...], seconds: dict[str, float], n: int
) -> Counter[str]:
    """n requests one after another, each within 10 % of its peer's usual time; who got them."""
    picked: Counter[str] = Counter()
    noise = random.Random(11)
    for _ in range(n):
        pick = balancer.pick(peers)
        assert pick is not None
        with pick:
            clock.now += seconds[pick.peer.id] * noise.uniform(0.9, 1.1)
        picked[pick.peer.id] += 1
    return picked


def fail(balancer: Balancer, error: type[BaseException], *, keep: bool = False) -> None:
    """A block that ends by `error`."""

    def work() -> None:
        with balancer.pick((QUICK,)) as pick:  # type: ignore[union-attr]
            assert balancer.in_flight == 1
            if keep:
                pick.keep()
            raise error

    with pytest.raises(error):
        work()


def test_of_nobody_nobody_is_picked(balancer: Balancer) -> None:
    assert balancer.pick(()) is None
    assert balancer.pick((QUICK,), ("quick",)) is None


def test_the_only_one_is_picked(balancer: Balancer) -> None:
    pick = balancer.pick((QUICK,))
    assert pick is not None
    assert pick.peer is QUICK


def test_who_was_tried_is_left_out(balancer: Balancer) -> None:
    for _ in range(50):
        pick = balancer.pick((SLOW, QUICK), ("slow",))
        assert pick is not None
        with pick:
            assert pick.peer is QUICK


def test_the_faster_one_gets_nearly_everything(balancer: Balancer, clock: Clock) -> None:
    picked = serve(balancer, clock, (SLOW, QUICK), {"slow": 0.1, "quick": 0.01}, 1000)
    assert picked["quick"] > 900
    # The slow one is asked again now and then, or nobody would notice that it has become quick.
    assert picked["slow"] > 3


def test_a_slow_one_that_becomes_quick_gets_its_share_again(balancer: Balancer, clock: Clock) -> None:
    serve(balancer, clock, (SLOW, QUICK), {"slow": 0.1, "quick": 0.01}, 1000)
    serve(balancer, clock, (SLOW, QUICK), {"slow": 0.01, "quick": 0.01}, 10_000)
    assert serve(balancer, clock, (SLOW, QUICK), {"slow": 0.01, "quick": 0.01}, 1000)["slow"] > 200


def test_of_equals_the_one_with_fewer_in_flight_is_picked(balancer: Balancer, clock: Clock) -> None:
    serve(balancer, clock, (SLOW, QUICK), {"slow": 0.01, "quick": 0.01}, 100)
    held = [balancer.pick((SLOW,)) for _ in range(5)]
    pick = balancer.pick((SLOW, QUICK))
    assert pick is not None
    assert pick.peer is QUICK
    assert len(held) == 5


def test_equals_share_evenly(balancer: Balancer, clock: Clock) -> None:
    peers = tuple(instance(id=f"p{n}") for n in range(5))
    picked = serve(balancer, clock, peers, dict.fromkeys([p.id for p in peers], 0.01), 5000)
    assert len(picked) == 5
    assert min(picked.values()) > 500


def test_weight_shifts_the_load(balancer: Balancer, clock: Clock) -> None:
    heavy, light = instance(id="heavy", weight=4.0), instance(id="light", weight=1.0)
    for peer in (heavy, light):
        serve(balancer, clock, (peer,), {"heavy": 0.01, "light": 0.01}, 1)
    held = Counter(pick.peer.id for _ in range(100) if (pick := balancer.pick((heavy, light))))
    assert held["heavy"] == pytest.approx(80, abs=3)


def test_failing_fast_does_not_look_like_being_fast(balancer: Balancer, clock: Clock) -> None:
    bad, good = instance(id="bad"), instance(id="good")
    picked: Counter[str] = Counter()
    for _ in range(1000):
        pick = balancer.pick((bad, good))
        assert pick is not None
        with pick:
            clock.now += 0.0001 if pick.peer is bad else 0.05
            pick.settle(failed=pick.peer is bad)
        picked[pick.peer.id] += 1
    # 50 s have passed: once at first, then a trial every failing_idle_seconds.
    assert picked["bad"] <= 12


def test_one_that_has_failed_is_as_good_as_ever_after_its_first_success(balancer: Balancer, clock: Clock) -> None:
    with balancer.pick((SLOW,)) as pick:  # type: ignore[union-attr]
        pick.settle(failed=True)
    serve(balancer, clock, (SLOW,), {"slow": 0.01}, 1)
    serve(balancer, clock, (QUICK,), {"quick": 0.01}, 1)
    assert serve(balancer, clock, (SLOW, QUICK), {"slow": 0.01, "quick": 0.01}, 1000)["slow"] > 300


def test_a_new_peer_is_tried_at_once_but_with_one_request_only(balancer: Balancer, clock: Clock) -> None:
    serve(balancer, clock, (QUICK,), {"quick": 0.01}, 10)
    new = instance(id="new")
    held = [balancer.pick((QUICK, new)) for _ in range(20)]
    assert Counter(pick.peer.id for pick in held if pick)["new"] == 1


def test_a_restarted_peer_starts_afresh(balancer: Balancer, clock: Clock) -> None:
    with balancer.pick((SLOW,)) as pick:  # type: ignore[union-attr]
        pick.settle(failed=True)
    serve(balancer, clock, (QUICK,), {"quick": 0.01}, 1)
    restarted = instance(id="slow", generation=2)
    pick = balancer.pick((restarted, QUICK))
    assert pick is not None
    assert pick.peer is restarted


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
def test_whatever_ends_the_block_it_is_released(balancer: Balancer, error: type[BaseException]) -> None:
    fail(balancer, error)
    assert balancer.in_flight == 0


def test_releasing_twice_counts_once(balancer: Balancer) -> None:
    with balancer.pick((QUICK,)) as pick:  # type: ignore[union-attr]
        pick.release()
    assert balancer.in_flight == 0


def test_a_kept_pick_stays_in_flight_until_it_is_released(balancer: Balancer) -> None:
    with balancer.pick((QUICK,)) as pick:  # type: ignore[union-attr]
        pick.keep()
    assert balancer.in_flight == 1
    pick.release()
    assert balancer.in_flight == 0


def test_a_kept_pick_is_released_if_its_block_fails_after_all(balancer: Balancer) -> None:
    fail(balancer, RuntimeError, keep=True)
    assert balancer.in_flight == 0


def give_up(balancer: Balancer, clock: Clock, peer: Instance, seconds: float) -> None:
    pick = balancer.pick((peer,))
    assert pick is not None
    clock.now += seconds
    pick.__exit__(asyncio.CancelledError, asyncio.CancelledError(), None)


def test_a_call_that_is_given_up_late_shows_that_its_peer_is_slow(balancer: Balancer, clock: Clock) -> None:
    serve(balancer, clock, (SLOW, QUICK), {"slow": 0.01, "quick": 0.01}, 100)
    give_up(balancer, clock, SLOW, 5.0)
    assert serve(balancer, clock, (SLOW, QUICK), {"slow": 0.01, "quick": 0.01}, 50)["quick"] > 45


def test_calls_that_are_given_up_early_do_not_show_that_their_peer_is_quick(balancer: Balancer, clock: Clock) -> None:
    serve(balancer, clock, (SLOW,), {"slow": 1.0}, 1)
    for _ in range(1000):
        give_up(balancer, clock, SLOW, 0.001)
        clock.now += 0.1
    serve(balancer, clock, (QUICK,), {"quick": 0.01}, 1)
    assert serve(balancer, clock, (SLOW, QUICK), {"slow": 1.0, "quick": 0.01}, 50)["quick"] > 45


def test_peers_that_have_gone_are_forgotten_but_not_while_something_is_in_flight_there(balancer: Balancer) -> None:
    with balancer.pick((SLOW,)):  # type: ignore[union-attr]
        with balancer.pick((QUICK,)):  # type: ignore[union-attr]
            pass
        balancer.retain([])
        assert repr(balancer) == "<Balancer 1 peers, 1 in flight>"
    balancer.retain([])
    assert repr(balancer) == "<Balancer 0 peers, 0 in flight>"


def test_an_old_peak_is_forgotten_with_time(clock: Clock) -> None:
    balancer = Balancer(Policy(decay_seconds=10), clock=clock, rng=random.Random(7))
    serve(balancer, clock, (SLOW,), {"slow": 1.0}, 1)
    serve(balancer, clock, (QUICK,), {"quick": 0.1}, 1)
    for _ in range(600):
        serve(balancer, clock, (SLOW,), {"slow": 0.1}, 1)
    picked = serve(balancer, clock, (SLOW, QUICK), {"slow": 0.1, "quick": 0.1}, 1000)
    assert picked["slow"] > 300
