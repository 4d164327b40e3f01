"""The window of latencies, on a clock of the test's own."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from app.mesh.calling.latency import Latencies


@given(st.lists(st.floats(0.0002, 60), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_never_too_low_and_at_most_a_tenth_too_high(recorded: list[float], share: float) -> None:
    latencies = Latencies()
    for seconds in recorded:
        latencies.record(seconds, 1000.0)
    exact = sorted(recorded)[math.ceil(share * len(recorded)) - 1]
    found = latencies.quantile(share)
    assert found is not None
    assert exact * (1 - 1e-9) <= found <= exact * 1.1


def test_nothing_is_known_before_the_first_call() -> None:
    latencies = Latencies()
    assert (latencies.median, latencies.p99, latencies.quantile(0.5)) == (None, None, None)


def test_the_first_call_is_all_that_is_known_and_known_at_once() -> None:
    latencies = Latencies()
    latencies.record(5.0, 1000.0)
    assert latencies.p99 is not None
    assert 5.0 <= latencies.p99 < 5.5


def test_a_few_slow_calls_move_the_p99_and_not_the_median() -> None:
    latencies = Latencies()
    for _ in range(97):
        latencies.record(0.01, 1000.0)
    for _ in range(3):
        latencies.record(2.0, 1001.0)
    assert latencies.median is not None
    assert latencies.p99 is not None
    assert (latencies.median < 0.012, latencies.p99 > 1.9) == (True, True)


def test_what_is_long_past_is_forgotten() -> None:
    latencies = Latencies(window_seconds=60)
    latencies.record(9.0, 1000.0)
    for second in range(1001, 1070):
        latencies.record(0.01, float(second))
    assert latencies.p99 is not None
    assert latencies.p99 < 0.02


def test_after_a_long_silence_nothing_old_is_left() -> None:
    latencies = Latencies()
    latencies.record(9.0, 1000.0)
    latencies.record(0.01, 5000.0)
    assert latencies.p99 is not None
    assert latencies.p99 < 0.02


def test_times_beyond_the_scale_are_at_its_ends() -> None:
    latencies = Latencies()
    latencies.record(0.0, 1000.0)
    latencies.record(1e9, 1000.0)
    assert latencies.quantile(0.5) == 0.0001
    assert latencies.quantile(1.0) is not None
