"""What a benchmark is made of, and what comes of it: plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from app.lab import figures
from app.lab.figures import Goal, Verdict


@dataclass(frozen=True, slots=True)
class Metric:
    """One kind of figure.

    Args:
        key: its name in samples and in JSON.
        heading: as a table's column shows it, with its unit.
        digits: after the point.
    """

    key: str
    heading: str
    digits: int = 0
    lower_is_better: bool = True

    def show(self, figure: float) -> str:
        return "–" if math.isnan(figure) else f"{figure:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that is measured.

    Args:
        key: its name in samples and in JSON.
        label: what it is, for a table.
        app: a module of `app.lab.bench.subjects`.
        server: a module of `app.lab.bench.servers`.
    """

    key: str
    label: str
    app: str = ""
    server: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one subject; `round` counts from 1."""

    subject: str
    round: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ours against another subject, as "times better", or as "times the cost".

    Args:
        metrics: the first is the one that the goal judges; the others are shown beside it.
        as_cost: turn the ratio round: 1.2 says that ours costs a fifth more.
    """

    ours: str
    other: str
    metrics: tuple[str, ...]
    goal: Goal | None = None
    as_cost: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure of one subject that must not exceed a bound in any sample (errors, say)."""

    subject: str
    metric: str
    goal: Goal


@dataclass(frozen=True, slots=True)
class Ratio:
    """What came of a comparison: for each metric the ratio of the medians, and the span of the rounds' own ratios."""

    comparison: Comparison
    ratios: Mapping[str, float]
    span: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """A benchmark with its samples.

    Args:
        notes: what a reader must know to believe the figures.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    subjects: tuple[Subject, ...]
    metrics: tuple[Metric, ...]
    samples: tuple[Sample, ...]
    comparisons: tuple[Comparison, ...] = ()
    limits: tuple[Limit, ...] = ()

    def metric(self, key: str) -> Metric:
        return next(metric for metric in self.metrics if metric.key == key)

    def figures_of(self, subject: str, metric: str) -> list[float]:
        """Of all rounds, in order; NaN where the subject has no such figure."""
        return [sample.figures.get(metric, math.nan) for sample in self.samples if sample.subject == subject]

    def median_of(self, subject: str, metric: str) -> float:
        return figures.median(self.figures_of(subject, metric))

    def ratio(self, comparison: Comparison) -> Ratio:
        ratios = {key: self._times(comparison, key) for key in comparison.metrics}
        judged = comparison.metrics[0]
        rounds = zip(self.figures_of(comparison.ours, judged), self.figures_of(comparison.other, judged), strict=False)
        spans = [self._one(comparison, judged, ours, other) for ours, other in rounds]
        verdict = figures.judge(ratios[judged], comparison.goal)
        return Ratio(comparison, ratios, (min(spans), max(spans)), verdict)

    def worst(self, limit: Limit) -> tuple[float, Verdict]:
        """The largest figure of all rounds, and what it means."""
        worst = max(self.figures_of(limit.subject, limit.metric))
        return worst, figures.judge(worst, limit.goal)

    @property
    def comparable(self) -> list[Comparison]:
        """The comparisons of which both sides were measured."""
        keys = {subject.key for subject in self.subjects}
        return [comparison for comparison in self.comparisons if {comparison.ours, comparison.other} <= keys]

    @property
    def limited(self) -> list[Limit]:
        """The limits of what was measured."""
        keys = {subject.key for subject in self.subjects}
        return [limit for limit in self.limits if limit.subject in keys]

    @property
    def missed(self) -> int:
        """How many goals were missed."""
        missed = sum(self.ratio(comparison).verdict == "missed" for comparison in self.comparable)
        return missed + sum(self.worst(limit)[1] == "missed" for limit in self.limited)

    def _times(self, comparison: Comparison, metric: str) -> float:
        ours, other = self.median_of(comparison.ours, metric), self.median_of(comparison.other, metric)
        return self._one(comparison, metric, ours, other)

    def _one(self, comparison: Comparison, metric: str, ours: float, other: float) -> float:
        lower_is_better = self.metric(metric).lower_is_better
        better = figures.times_better(ours, other, lower_is_better=lower_is_better)
        return 1 / better if comparison.as_cost else better
