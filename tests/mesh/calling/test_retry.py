from __future__ import annotations

import random

import pytest

from app.errors import BadReply, DeadlineExceeded, MeshError, NoInstance, PeerUnreachable
from app.mesh.calling import retry
from app.mesh.calling.retry import Budget, Policy, Verdict

POLICY = Policy()
UNSENT, CUT = PeerUnreachable(sent=False), PeerUnreachable(sent=True)
STOP, OTHER, ANY = Verdict.STOP, Verdict.OTHER_PEER, Verdict.ANY_PEER


@pytest.mark.parametrize(
    ("error", "status", "later", "idempotent", "verdict"),
    [
        (UNSENT, 0, False, True, ANY),
        (UNSENT, 0, False, False, ANY),
        (CUT, 0, False, True, ANY),
        (CUT, 0, False, False, STOP),
        (None, 502, False, True, OTHER),
        (None, 503, False, True, OTHER),
        (None, 504, False, True, OTHER),
        (None, 503, True, False, STOP),
        (None, 429, True, True, OTHER),
        (None, 429, False, True, STOP),
        (None, 500, False, True, STOP),
        (None, 501, False, True, STOP),
        (None, 404, True, True, STOP),
        (None, 409, False, True, STOP),
        (None, 200, False, True, STOP),
        (DeadlineExceeded(), 0, False, True, STOP),
        (BadReply(), 0, False, True, STOP),
        (NoInstance(), 0, False, True, STOP),
    ],
)
def test_the_table_of_what_may_be_tried_again(
    error: MeshError | None, status: int, later: bool, idempotent: bool, verdict: Verdict
) -> None:
    judged = retry.judge(POLICY, number=1, idempotent=idempotent, error=error, status=status, later=later)
    assert judged is verdict


@pytest.mark.parametrize(
    ("error", "status", "attempts"),
    [(UNSENT, 0, 4), (CUT, 0, 2), (None, 503, 2)],
)
def test_the_attempts_are_counted(error: MeshError | None, status: int, attempts: int) -> None:
    number = 1
    while retry.judge(POLICY, number=number, idempotent=True, error=error, status=status, later=False) is not STOP:
        number += 1
    assert number == attempts


@pytest.mark.parametrize("error", [UNSENT, CUT, None])
def test_no_retries_means_none(error: MeshError | None) -> None:
    never = Policy(retries=0)
    assert retry.judge(never, number=1, idempotent=True, error=error, status=503, later=False) is STOP


@pytest.mark.parametrize(("number", "ceiling"), [(1, 0.025), (2, 0.05), (3, 0.1), (4, 0.2), (5, 0.25), (99, 0.25)])
def test_the_back_off_is_fully_jittered_under_a_rising_ceiling(number: int, ceiling: float) -> None:
    rng = random.Random(7)
    drawn = [retry.backoff_seconds(POLICY, number, rng) for _ in range(2000)]
    assert 0 <= min(drawn) < 0.1 * ceiling
    assert 0.9 * ceiling < max(drawn) <= ceiling


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
    assert budget.left(1009.9) == 200
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
    assert retries <= 0.2 * calls + 10 * (30 + 10)
