"""Samples become ratios and verdicts; tables and pictures say the same."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.errors import BadInput
from app.lab.bench import picture
from app.lab.bench.lab import Options
from app.lab.bench.model import Comparison, Limit, Metric, Result, Sample, Subject
from app.lab.figures import Goal

CPU, RATE, ERRORS = Metric("cpu", "CPU"), Metric("rate", "rate", lower_is_better=False), Metric("errors", "errors")
SUBJECTS = (Subject("ours", "ours <&>"), Subject("theirs", "theirs"))


def result(ours: Sequence[float], theirs: Sequence[float], *, goal: Goal | None = None, errors: int = 0) -> Result:
    samples = [
        Sample(key, number, {"cpu": cpu, "rate": 1000 / cpu, "errors": errors})
        for key, rounds in (("ours", ours), ("theirs", theirs))
        for number, cpu in enumerate(rounds, 1)
    ]
    comparisons = (Comparison("ours", "theirs", ("cpu", "rate"), goal),)
    limits = (Limit("ours", "errors", Goal("at most", 0)),)
    return Result("x", "title", (), SUBJECTS, (CPU, RATE, ERRORS), tuple(samples), comparisons, limits)


def test_a_ratio_is_of_the_medians_and_its_span_of_the_rounds() -> None:
    compared = result([100, 200, 100], [150, 150, 300])
    ratio = compared.ratio(compared.comparisons[0])
    assert ratio.ratios == pytest.approx({"cpu": 1.5, "rate": 1.5})
    assert ratio.span == (0.75, 3.0)
    assert ratio.verdict == "no goal"


def test_a_cost_is_the_ratio_turned_round() -> None:
    compared = result([120], [100])
    cost = replace(compared.comparisons[0], as_cost=True, goal=Goal("at most", 1.3))
    assert compared.ratio(cost).ratios["cpu"] == pytest.approx(1.2)
    assert compared.ratio(cost).verdict == "met"


def test_missed_goals_are_counted() -> None:
    assert result([100], [150], goal=Goal("at least", 1.3)).missed == 0
    assert result([100], [120], goal=Goal("at least", 1.3)).missed == 1
    assert result([100], [120], errors=1).missed == 1


def test_a_comparison_needs_both_of_its_sides() -> None:
    alone = replace(result([100], []), subjects=SUBJECTS[:1])
    assert alone.comparable == []
    assert alone.missed == 0


def test_only_what_is_asked_for_is_measured() -> None:
    assert Options(only=("theirs",)).chosen(SUBJECTS) == SUBJECTS[1:]
    assert Options().chosen(SUBJECTS) == SUBJECTS
    with pytest.raises(BadInput, match="ours, theirs"):
        Options(only=("nobody",)).chosen(SUBJECTS)


def test_the_picture_is_well_formed_and_loads_nothing() -> None:
    drawn = picture.svg([result([100, 110], [150, 150])], caption="<now>")
    tree = ET.fromstring(drawn)
    names = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert names.count("rect") == 1 + len(SUBJECTS)
    texts = [element.text for element in tree.iter() if element.tag.endswith("text")]
    assert {"ours <&>", "theirs", "105", "150", "<now>"} <= set(texts)
    assert "href" not in drawn
    assert "url(" not in drawn
