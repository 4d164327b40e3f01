"""One instance's ejection by itself, in verbs."""

from __future__ import annotations

import random

import pytest

from app.mesh.balancing.outlier import Outlier, Policy, State
from tests.mesh.balancing.stage import Clock

POLICY = Policy()


class Stage:
    def __init__(self) -> None:
        self.clock = Clock()
        self.outlier = Outlier(POLICY, random.Random(7))

    def state(self) -> State:
        return self.outlier.state

    def succeed(self, times: int = 1, epoch: int | None = None) -> None:
        for _ in range(times):
            self.outlier.succeed(self.outlier.epoch if epoch is None else epoch, self.clock.now)

    def fail(self, times: int = 1, epoch: int | None = None, *, silent: bool = False) -> None:
        for _ in range(times):
            self.outlier.fail(self.outlier.epoch if epoch is None else epoch, self.clock.now, silent=silent)

    def eject(self) -> float:
        """Out; for how many seconds."""
        self.fail(5)
        assert self.state() is State.OUT
        return self.outlier.until - self.clock.now

    def probe(self) -> None:
        self.clock.now = max(self.clock.now, self.outlier.until)
        self.outlier.probe()

    def come_back(self) -> None:
        self.probe()
        self.succeed()
        assert self.state() is State.IN


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_two_requests_in_a_row_without_an_answer_take_it_out(stage: Stage) -> None:
    stage.succeed(100)
    for _ in range(2):
        stage.fail(silent=True)
        stage.succeed()
        stage.fail(silent=True)
        stage.fail()
        stage.succeed()
    assert stage.state() is State.IN
    stage.fail(2, silent=True)
    assert stage.state() is State.OUT
    assert repr(stage.outlier) == "<Outlier out, out 1 times: 2 requests in a row without an answer>"


def test_five_failures_in_a_row_take_it_out(stage: Stage) -> None:
    stage.succeed(100)
    stage.fail(4)
    stage.succeed()
    stage.fail(4)
    assert stage.state() is State.IN
    stage.fail()
    assert stage.state() is State.OUT
    assert repr(stage.outlier) == "<Outlier out, out 1 times: 5 failures in a row>"


def test_less_than_four_successes_of_five_take_it_out(stage: Stage) -> None:
    for _ in range(4):
        stage.succeed(4)
        stage.fail()
    assert stage.state() is State.IN
    stage.fail()
    assert stage.state() is State.OUT
    assert stage.outlier.reason == "5 of 21 requests failed within 30 s"


def test_fewer_than_five_requests_are_no_rate(stage: Stage) -> None:
    stage.succeed()
    stage.fail(3)
    assert stage.state() is State.IN
    stage.fail()
    assert stage.state() is State.OUT


def test_failures_of_more_than_half_a_minute_ago_do_not_count(stage: Stage) -> None:
    stage.succeed(4)
    stage.fail(1)
    stage.clock.now += 36.0
    stage.succeed(3)
    stage.fail(1)
    assert stage.state() is State.IN
    stage.fail(1)
    assert stage.state() is State.OUT


def test_silence_takes_it_out(stage: Stage) -> None:
    assert stage.outlier.fall_silent(stage.clock.now, 1.25)
    assert stage.state() is State.OUT
    assert stage.outlier.reason == "no answer for 1.2 s"
    assert not stage.outlier.fall_silent(stage.clock.now, 2.0)


def test_who_was_out_for_its_silence_is_back_as_soon_as_it_speaks_and_owes_nothing(stage: Stage) -> None:
    early = stage.outlier.epoch
    stage.outlier.fall_silent(stage.clock.now, 1.0)
    stage.succeed(epoch=early)
    assert stage.state() is State.IN
    assert stage.outlier.times_out == 0


def test_other_late_results_change_nothing(stage: Stage) -> None:
    early = stage.outlier.epoch
    stage.eject()
    until = stage.outlier.until
    stage.succeed(5, epoch=early)
    stage.fail(5, epoch=early)
    assert (stage.state(), stage.outlier.until) == (State.OUT, until)
    stage.probe()
    stage.succeed(5, epoch=early)
    stage.fail(5, epoch=early)
    assert stage.state() is State.PROBING
    stage.succeed()
    stage.fail(5, epoch=early)
    assert stage.state() is State.IN


def test_a_probe_that_succeeds_brings_it_back_and_the_past_is_forgotten(stage: Stage) -> None:
    stage.eject()
    stage.come_back()
    stage.fail(4)
    assert stage.state() is State.IN


def test_a_probe_that_fails_puts_it_out_for_longer(stage: Stage) -> None:
    waits = [stage.eject()]
    for _ in range(9):
        stage.probe()
        stage.fail()
        waits.append(stage.outlier.until - stage.clock.now)
    for number, seconds in enumerate(waits):
        longest = min(300.0, 5.0 * 2**number)
        assert longest / 2 <= seconds <= longest
    assert stage.outlier.reason == "its probe failed"


def test_a_silent_probe_has_failed(stage: Stage) -> None:
    first = stage.eject()
    stage.probe()
    assert stage.outlier.fall_silent(stage.clock.now, 1.0)
    assert stage.state() is State.OUT
    assert stage.outlier.until - stage.clock.now >= first


def test_a_probe_that_was_let_go_leaves_room_for_the_next(stage: Stage) -> None:
    stage.eject()
    stage.probe()
    stage.outlier.let_go(stage.outlier.epoch - 1, stage.clock.now)
    assert stage.state() is State.PROBING
    stage.outlier.let_go(stage.outlier.epoch, stage.clock.now, seconds=0.5)
    assert stage.state() is State.OUT
    assert stage.outlier.until == stage.clock.now + 0.5
    stage.come_back()


def test_there_is_nothing_to_probe_or_let_go_of_while_it_is_in(stage: Stage) -> None:
    stage.outlier.probe()
    stage.outlier.let_go(stage.outlier.epoch, stage.clock.now, seconds=9.0)
    assert (stage.state(), stage.outlier.until) == (State.IN, 0.0)


def test_a_request_of_the_panic_that_succeeds_is_as_good_as_a_probe(stage: Stage) -> None:
    stage.eject()
    stage.fail(5)
    assert stage.outlier.times_out == 1
    stage.succeed()
    assert stage.state() is State.IN


def test_successes_ease_the_growth_step_by_step(stage: Stage) -> None:
    stage.eject()
    for _ in range(5):
        stage.probe()
        stage.fail()
    stage.come_back()
    assert stage.outlier.times_out == 6
    # Doing well for a moment does not make it new …
    stage.succeed(1000)
    assert stage.outlier.times_out == 6
    # … nor do failures, however long ago it came back.
    for _ in range(2):
        stage.clock.now += 10.0
        stage.fail(1)
    assert stage.outlier.times_out == 6
    for left in (5, 4, 3, 2, 1, 0, 0):
        stage.clock.now += 10.0
        stage.succeed(100)
        assert stage.outlier.times_out == left
    assert stage.eject() <= 5.0
