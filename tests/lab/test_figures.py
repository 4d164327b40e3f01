"""What figures mean."""

from __future__ import annotations

import math

import pytest

from app.lab import figures
from app.lab.figures import Goal


def test_a_median_is_not_moved_by_one_bad_round() -> None:
    assert figures.median([3.0, 1.0, 100.0]) == 3.0
    assert figures.median([1.0, 2.0]) == 1.5


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="nothing"):
        figures.median([])


@pytest.mark.parametrize(("percent", "figure"), [(0, 1), (50, 5), (90, 9), (99, 10), (100, 10)])
def test_percentiles_are_of_the_nearest_rank(percent: float, figure: float) -> None:
    assert figures.percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], percent) == figure


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(figures.percentile([], 50))


@pytest.mark.parametrize(
    ("ours", "theirs", "lower_is_better", "times"), [(50, 100, True, 2.0), (100, 50, True, 0.5), (300, 100, False, 3.0)]
)
def test_more_than_one_is_better(ours: float, theirs: float, lower_is_better: bool, times: float) -> None:
    assert figures.times_better(ours, theirs, lower_is_better=lower_is_better) == times


@pytest.mark.parametrize(("ours", "theirs"), [(0, 1), (1, 0), (math.nan, 1), (-1, 1)])
def test_a_figure_that_says_nothing_gives_no_ratio(ours: float, theirs: float) -> None:
    assert math.isnan(figures.times_better(ours, theirs, lower_is_better=True))


@pytest.mark.parametrize(
    ("figure", "goal", "verdict"),
    [
        (1.3, Goal("at least", 1.3), "met"),
        (1.29, Goal("at least", 1.3), "missed"),
        (0, Goal("at most", 0), "met"),
        (1, Goal("at most", 0), "missed"),
        (math.nan, Goal("at least", 1.3), "missed"),
        (math.nan, Goal("at most", 0), "missed"),
        (9, None, "no goal"),
    ],
)
def test_a_goal_is_met_or_missed(figure: float, goal: Goal | None, verdict: str) -> None:
    assert figures.judge(figure, goal) == verdict
