"""The retry budget, on a clock of the test's own."""

from __future__ import annotations

from collections import deque

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.mesh.calling.budget import Budget

WINDOW = 10


def withdrawn(budget: Budget, now: float) -> int:
    return sum(budget.withdraw(now) for _ in range(5000))


def test_a_service_that_is_hardly_called_may_still_be_retried_a_little() -> None:
    assert withdrawn(Budget(), 1000.0) == 100


def test_a_fifth_of_the_calls_may_be_retried() -> None:
    budget = Budget(floor_per_second=0)
    for _ in range(1000):
        budget.deposit(1000.0)
    assert withdrawn(budget, 1000.9) == 200
    assert withdrawn(budget, 1005.0) == 0


def test_calls_and_retries_count_for_ten_seconds() -> None:
    budget = Budget(floor_per_second=0)
    for _ in range(1000):
        budget.deposit(1000.0)
    assert round(budget.left(1009.9)) == 200
    budget.deposit(1010.0)
    assert budget.left(1010.0) < 1
    for _ in range(10):
        budget.deposit(1020.0)
    assert withdrawn(budget, 1020.0) == 2


def test_a_storm_gets_no_more_than_its_share_over_time() -> None:
    budget, retries, calls = Budget(), 0, 0
    for tick in range(30_000):
        now = 1000 + tick / 1000
        budget.deposit(now)
        calls += 1
        retries += budget.withdraw(now)
    # Thirty seconds and the window's own floor.
    assert 0.2 * calls < retries <= 0.2 * calls + 10 * (30 + WINDOW)


@hypothesis.given(
    offered=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    share=st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    floor=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_a_service_that_fails_every_attempt_never_gets_more_than_its_share(
    offered: list[int], share: float, floor: float
) -> None:
    """Second by second, each call and each of its repetitions fails, and wants to be repeated."""
    budget = Budget(share=share, floor_per_second=floor)
    repeated = []
    for second, calls in enumerate(offered):
        now = 1000.0 + second
        for _ in range(calls):
            budget.deposit(now)
        repeated.append(sum(budget.withdraw(now) for _ in range(2 * calls + 120)))
        assert sum(repeated) <= share * sum(offered[: second + 1]) + floor * (second + WINDOW) + 1e-6
        if repeated[-1]:
            window = slice(max(0, second - WINDOW + 1), second + 1)
            assert sum(repeated[window]) <= share * sum(offered[window]) + floor * WINDOW + 1e-6


class Reckoning(RuleBasedStateMachine):
    """The budget against a book of every single event."""

    def __init__(self) -> None:
        super().__init__()
        self.budget, self.now = Budget(), 5000.0
        self.book: deque[tuple[int, float]] = deque()

    def left(self) -> float:
        since = int(self.now) - WINDOW
        return 10.0 * WINDOW + sum(amount for second, amount in self.book if second > since)

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(8, 25)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(calls=st.integers(1, 200))
    def call(self, calls: int) -> None:
        for _ in range(calls):
            self.budget.deposit(self.now)
            self.book.append((int(self.now), 0.2))

    @rule(times=st.integers(1, 200))
    def repeat(self, times: int) -> None:
        for _ in range(times):
            allowed = self.left() >= 1 - 1e-9
            if self.budget.withdraw(self.now):
                self.book.append((int(self.now), -1.0))
                assert self.left() > -1e-6
            else:
                assert not allowed or self.left() < 1 + 1e-6

    @invariant()
    def it_keeps_count(self) -> None:
        assert abs(self.budget.left(self.now) - self.left()) < 1e-6


TestReckoning = Reckoning.TestCase
TestReckoning.settings = hypothesis.settings(max_examples=40, stateful_step_count=30)
