"""The breaker, in verbs, with a clock that is moved."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from app.errors import CircuitOpen
from app.mesh.balancing.breaker import Breaker, Permit, Policy, State
from tests.mesh.balancing.stage import Clock

POLICY = Policy(slow_seconds=2.0)


class Stage:
    def __init__(self, policy: Policy = POLICY, seed: int = 7) -> None:
        self.clock = Clock()
        self.changes: list[str] = []
        self.breaker = Breaker(
            "orders", policy, self.clock, random.Random(seed), lambda breaker: self.changes.append(breaker.state.value)
        )

    def state(self) -> State:
        return self.breaker.state

    def succeed(self, times: int = 1, seconds: float = 0.01) -> None:
        for _ in range(times):
            with self.breaker.permit() as permit:
                permit.succeed(seconds)

    def fail(self, times: int = 1, seconds: float = 0.01) -> None:
        for _ in range(times):
            with self.breaker.permit() as permit:
                permit.fail(seconds)

    def trip(self) -> None:
        self.fail(10)
        assert self.state() is State.OPEN

    def rejection(self) -> CircuitOpen:
        with pytest.raises(CircuitOpen) as caught:
            self.breaker.permit()
        return caught.value

    def wait_until_it_asks(self) -> float:
        """Let its time go by; how long that was, in seconds."""
        seconds = self.rejection().retry_after
        assert seconds is not None
        self.clock.now += seconds
        return seconds


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_is_closed_at_first(stage: Stage) -> None:
    stage.succeed(1000)
    assert repr(stage.breaker) == "<Breaker orders closed, 0 failed and 0 slow of 50>"


def test_it_opens_when_half_of_the_calls_failed(stage: Stage) -> None:
    stage.succeed(10)
    stage.fail(9)
    assert stage.state() is State.CLOSED
    stage.fail()
    assert stage.state() is State.OPEN
    assert stage.breaker.reason == "10 of 20 calls failed"


def test_it_does_not_judge_by_fewer_than_ten_calls(stage: Stage) -> None:
    stage.fail(9)
    assert stage.state() is State.CLOSED
    stage.fail()
    assert stage.state() is State.OPEN


def test_a_success_never_opens_it(stage: Stage) -> None:
    stage.fail(9)
    stage.succeed()
    assert stage.state() is State.CLOSED


def test_only_the_last_fifty_calls_count(stage: Stage) -> None:
    stage.succeed(1000)
    stage.fail(24)
    assert stage.state() is State.CLOSED
    stage.fail()
    assert stage.state() is State.OPEN
    assert stage.breaker.reason == "25 of 50 calls failed"


def test_only_the_last_ten_seconds_count(stage: Stage) -> None:
    stage.fail(9)
    stage.clock.now += 10.0
    stage.fail(9)
    assert stage.state() is State.CLOSED
    stage.clock.now += 9.9
    stage.fail()
    assert stage.state() is State.OPEN


def test_it_opens_when_half_of_the_calls_were_slow(stage: Stage) -> None:
    stage.succeed(5)
    stage.succeed(4, seconds=2.0)
    assert stage.state() is State.CLOSED
    stage.succeed(seconds=2.0)
    assert stage.state() is State.OPEN
    assert stage.breaker.reason == "5 of 10 calls took 2 s or more"


def test_without_a_threshold_nothing_is_slow() -> None:
    stage = Stage(Policy())
    stage.succeed(100, seconds=1e9)
    assert stage.state() is State.CLOSED
    assert Policy().slow_seconds == inf


def test_while_it_is_open_it_rejects_and_says_when_to_come_back(stage: Stage) -> None:
    stage.trip()
    error = stage.rejection()
    assert error.retry_after == pytest.approx(stage.breaker.opens_at(stage.clock.now) - stage.clock.now)
    assert error.retry_after is not None
    assert 2.5 <= error.retry_after <= 5.0
    assert str(error) == repr(stage.breaker)[9:-1].replace("orders ", "orders: circuit breaker ")
    assert repr(stage.breaker) == f"<Breaker orders open, probe in {error.retry_after:.1f} s: 10 of 10 calls failed>"


def test_being_rejected_is_no_failure(stage: Stage) -> None:
    stage.trip()
    before = stage.breaker.opens_at(stage.clock.now)
    for _ in range(100):
        stage.rejection()
    assert stage.breaker.opens_at(stage.clock.now) == before
    assert stage.changes == ["open"]


def test_three_probes_that_go_well_close_it(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    stage.succeed(2)
    assert stage.state() is State.HALF_OPEN
    stage.succeed()
    assert stage.state() is State.CLOSED
    assert stage.changes == ["open", "half_open", "closed"]
    # What was before is forgotten.
    stage.fail(9)
    assert stage.state() is State.CLOSED


def test_no_more_than_three_probes_are_on_their_way(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    permits = [stage.breaker.permit() for _ in range(3)]
    assert stage.rejection().retry_after == 1.0
    assert repr(stage.breaker) == "<Breaker orders half open, 0 of 3 probes went well, 3 out>"
    permits[0].succeed(0.01)
    # The place of one that went well is not free: three in all have to.
    stage.rejection()


@pytest.mark.parametrize("seconds", [0.01, 2.0])
def test_a_probe_that_fails_or_is_slow_opens_it_again(stage: Stage, seconds: float) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    stage.succeed(2)
    if seconds < POLICY.slow_seconds:
        stage.fail()
    else:
        stage.succeed(seconds=seconds)
    assert stage.state() is State.OPEN
    stage.rejection()


def test_it_stays_open_longer_each_time_up_to_a_minute(stage: Stage) -> None:
    stage.trip()
    waits = []
    for _ in range(8):
        waits.append(stage.wait_until_it_asks())
        stage.fail()
    for number, seconds in enumerate(waits):
        longest = min(60.0, 5.0 * 2**number)
        assert longest / 2 <= seconds <= longest
    assert len(set(waits)) == 8


def test_trouble_soon_after_it_has_closed_is_the_same_trouble(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    stage.succeed(3)
    stage.clock.now += 59.0
    stage.trip()
    assert stage.wait_until_it_asks() >= 5.0
    stage.succeed(3)
    stage.clock.now += 60.0
    stage.trip()
    assert stage.wait_until_it_asks() <= 5.0


def test_a_late_result_of_the_time_before_is_ignored(stage: Stage) -> None:
    early = [stage.breaker.permit() for _ in range(4)]
    stage.trip()
    early[0].succeed(0.01)
    stage.wait_until_it_asks()
    probe = stage.breaker.permit()
    early[1].fail(0.01)
    early[2].succeed(0.01)
    early[3].ignore()
    assert repr(stage.breaker) == "<Breaker orders half open, 0 of 3 probes went well, 1 out>"
    probe.succeed(0.01)
    assert repr(stage.breaker) == "<Breaker orders half open, 1 of 3 probes went well, 0 out>"


def test_a_cancelled_call_says_nothing(stage: Stage) -> None:
    for _ in range(100):
        with suppress(KeyboardInterrupt), stage.breaker.permit():
            raise KeyboardInterrupt
    assert repr(stage.breaker) == "<Breaker orders closed, 0 failed and 0 slow of 0>"


def test_a_cancelled_probe_gives_its_place_back(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    for _ in range(10):
        with suppress(KeyboardInterrupt), stage.breaker.permit():
            raise KeyboardInterrupt
    stage.succeed(3)
    assert stage.state() is State.CLOSED


def test_of_a_permit_only_the_first_word_counts(stage: Stage) -> None:
    with stage.breaker.permit() as permit:
        permit.succeed(0.01)
        permit.fail(0.01)
        permit.ignore()
    assert repr(stage.breaker) == "<Breaker orders closed, 0 failed and 0 slow of 1>"
    assert repr(permit) == "<Permit orders, used>"


def test_probes_that_do_not_come_back_do_not_leave_it_half_open_for_ever(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    lost = [stage.breaker.permit() for _ in range(3)]
    stage.clock.now += 29.9
    stage.rejection()
    assert stage.state() is State.HALF_OPEN
    stage.clock.now += 0.1
    stage.rejection()
    assert stage.state() is State.OPEN
    assert stage.breaker.reason == "a probe did not come back"
    stage.wait_until_it_asks()
    for permit in lost:
        permit.fail(30.0)
    stage.succeed(3)
    assert stage.state() is State.CLOSED


def test_probes_that_are_given_up_do_not_prolong_the_time_of_one_that_hangs(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    stage.breaker.permit()
    for _ in range(3):
        stage.clock.now += 10.0
        stage.breaker.tend(stage.clock.now)
        with suppress(CircuitOpen):
            stage.breaker.permit().ignore()
    assert stage.state() is State.OPEN


def test_while_nobody_asks_it_may_stay_half_open(stage: Stage) -> None:
    stage.trip()
    stage.wait_until_it_asks()
    stage.succeed(2)
    stage.clock.now += 1e6
    stage.succeed()
    assert stage.state() is State.CLOSED


class BreakerRules(RuleBasedStateMachine):
    """Whatever happens in whatever order, against a model that keeps only what a caller can see."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.out: dict[Permit, int] = {}
        self.opened_at = 0.0

    @property
    def generation(self) -> int:
        return self.stage.breaker.generation

    @property
    def live_probes(self) -> list[Permit]:
        return [permit for permit, generation in self.out.items() if generation == self.generation]

    @rule(target=permits)
    def ask(self) -> Any:
        breaker, now = self.stage.breaker, self.stage.clock.now
        before, opens_at = breaker.state, breaker.opens_at(now)
        if before is not State.CLOSED and opens_at > now:
            assert 0 < (self.stage.rejection().retry_after or 0) <= 60.0
            return multiple()
        if before is State.HALF_OPEN and len(self.live_probes) >= POLICY.probes:
            # They are late: instead of one more probe it opens again.
            self.stage.rejection()
            assert self.stage.state() is State.OPEN
            return multiple()
        try:
            permit = breaker.permit()
        except CircuitOpen:
            assert before is State.HALF_OPEN
            return multiple()
        self.out[permit] = self.generation
        return permit

    @rule(permit=consumes(permits), seconds=st.sampled_from([0.01, 3.0]), well=st.booleans())
    def answer(self, permit: Permit, seconds: float, well: bool) -> None:
        generation, state = self.generation, self.stage.state()
        is_late = self.out.pop(permit) != generation
        (permit.succeed if well else permit.fail)(seconds)
        if is_late:
            assert (self.generation, self.stage.state()) == (generation, state)
        elif state is State.HALF_OPEN and (not well or seconds > POLICY.slow_seconds):
            assert self.stage.state() is State.OPEN

    @rule(permit=consumes(permits))
    def let_go(self, permit: Permit) -> None:
        generation = self.generation
        del self.out[permit]
        permit.ignore()
        assert self.generation == generation

    @rule(times=st.integers(1, 60))
    def answer_many(self, times: int) -> None:
        with suppress(CircuitOpen):
            self.stage.succeed(times)

    @rule(times=st.integers(1, 60))
    def fail_many(self, times: int) -> None:
        with suppress(CircuitOpen):
            self.stage.fail(times)

    @rule(seconds=st.floats(0.1, 70.0))
    def wait(self, seconds: float) -> None:
        self.stage.clock.now += seconds

    @precondition(lambda self: self.stage.state() is State.OPEN)
    @rule()
    def wait_for_probes(self) -> None:
        self.stage.clock.now = max(self.stage.clock.now, self.stage.breaker.opens_at(self.stage.clock.now))

    @invariant()
    def at_most_three_probes_are_out(self) -> None:
        if self.stage.state() is State.HALF_OPEN:
            assert len(self.live_probes) <= POLICY.probes

    @invariant()
    def no_state_is_for_ever(self) -> None:
        """Whatever is out: after a while somebody gets through, and if that goes well it closes."""
        now = self.stage.clock.now
        assert self.stage.breaker.opens_at(now) - now <= max(POLICY.longest_open_seconds, POLICY.half_open_seconds)

    @invariant()
    def every_arrow_is_told_and_is_one_of_the_drawing(self) -> None:
        story = ["closed", *self.stage.changes]
        assert story[-1] == self.stage.state().value
        assert len(story) - 1 == self.generation
        allowed = {("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed")}
        assert set(pairwise(story)) <= allowed

    def teardown(self) -> None:
        """Everybody gives up, and then all goes well: it must close."""
        for permit in self.out:
            permit.ignore()
        for _ in range(3):
            self.stage.clock.now += 100.0
            with suppress(CircuitOpen):
                self.stage.succeed(10)
        assert self.stage.state() is State.CLOSED


TestBreakerRules = BreakerRules.TestCase
