"""Figures and what they mean: medians, percentiles, ratios, goals, verdicts. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["met", "missed", "no goal"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure ought to be: at least, or at most, `figure`."""

    kind: Literal["at least", "at most"]
    figure: float

    def __str__(self) -> str:
        return f"{'≥' if self.kind == 'at least' else '≤'} {self.figure:g}"


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones. Raises: ValueError: there are none."""
    if not values:
        raise ValueError("There is no median of nothing")
    return float(statistics.median(values))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of them do not exceed (nearest rank); NaN of nothing.

    Args:
        ordered: ascending.
    """
    if not ordered:
        return math.nan
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def times_better(ours: float, theirs: float, *, lower_is_better: bool) -> float:
    """How many times better ours is, as in 1.3; NaN where one of them says nothing (zero or NaN)."""
    worse, better = (theirs, ours) if lower_is_better else (ours, theirs)
    if not (worse > 0 and better > 0):
        return math.nan
    return worse / better


def judge(figure: float, goal: Goal | None) -> Verdict:
    """Whether `figure` is what it ought to be; one that is not a number never is."""
    if goal is None:
        return "no goal"
    met = figure >= goal.figure if goal.kind == "at least" else figure <= goal.figure
    return "met" if met else "missed"
