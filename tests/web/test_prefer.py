from __future__ import annotations

import time

import pytest
from flask import Flask

from app import context
from app.context import Context
from app.web.views.prefer import Wait, preferred_wait


def heard(*headers: str, left: float | None = None) -> Wait | None:
    """What is understood of a request with these Prefer headers, which has `left` seconds."""
    with Flask(__name__).test_request_context(headers=[("Prefer", header) for header in headers]):
        if left is None:
            return preferred_wait()
        with context.activate(Context("r1", deadline=time.monotonic() + left)):
            return preferred_wait()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["wait=2"], 2),
        (["Wait=2"], 2),
        (['wait="2"'], 2),
        (["wait = 2"], 2),
        (["wait=0"], 0),
        (["respond-async, wait=2"], 2),
        (["return=minimal", "wait=2; strictly, handling=lenient"], 2),
        (['x="wait=9, wait=8", wait=2'], 2),
        (["wait=2, wait=5"], 2),
        (["wait=2", "wait=5"], 2),
        (["wait=86400"], 30),
    ],
)
def test_the_first_wait_counts_and_no_more_than_half_a_minute(headers: list[str], seconds: int) -> None:
    wait = heard(*headers)
    assert wait is not None
    assert wait.seconds == seconds
    assert wait.headers == {"Preference-Applied": f"wait={seconds}"}


@pytest.mark.parametrize(
    "headers",
    [[], [""], ["return=minimal"], ["wait"], ["wait="], ["wait=2.5"], ["wait=-1"], ["wait=x"], ["await=2"], ["wait=२"]],
)
def test_what_is_no_wait_is_no_error(headers: list[str]) -> None:
    assert heard(*headers) is None


def test_the_first_one_counts_also_where_it_says_nothing() -> None:
    assert heard("wait, wait=5") is None


def test_a_request_waits_no_longer_than_it_has_time() -> None:
    bounded, over, free = heard("wait=20", left=5.0), heard("wait=20", left=0.1), heard("wait=20", left=29.0)
    assert bounded is not None
    assert 0 < bounded.longest_seconds < 5.0
    assert over is not None
    assert over.longest_seconds == 0.0
    assert free is not None
    assert free.longest_seconds == 20.0
