"""How long to wait before a restart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.dev.keeper import Backoff


def test_the_first_restart_comes_soon_and_each_further_one_later() -> None:
    backoff = Backoff(first_seconds=0.2, longest_seconds=2.0)
    assert [backoff.seconds(crashes) for crashes in range(1, 7)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@given(st.integers(1, 10**9))
def test_no_number_of_crashes_makes_it_wait_longer_than_the_longest(crashes: int) -> None:
    assert 0 < Backoff().seconds(crashes) <= Backoff().longest_seconds


def test_a_process_that_stayed_up_is_forgiven() -> None:
    backoff = Backoff(steady_seconds=10)
    assert backoff.crashes(5, lived_seconds=1) == 6
    assert backoff.crashes(5, lived_seconds=10) == 1
