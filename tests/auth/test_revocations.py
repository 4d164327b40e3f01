from __future__ import annotations

from app.auth.revocations import Revocations
from tests.auth.clock import Clock


def test_a_session_has_ended_from_when_it_is_heard() -> None:
    clock = Clock()
    ended = Revocations(clock)
    assert "s" not in ended
    ended.heard({"s": clock.now + 10})
    assert "s" in ended
    assert "other" not in ended


def test_what_no_token_could_outlive_is_forgotten_with_the_next_word() -> None:
    clock = Clock()
    ended = Revocations(clock)
    ended.heard({"a": clock.now + 10, "b": clock.now + 20})
    clock.now += 10
    ended.heard({"c": clock.now + 10})
    assert len(ended) == 2
    assert "a" not in ended


def test_what_is_over_when_it_is_heard_is_not_kept() -> None:
    clock = Clock()
    ended = Revocations(clock)
    ended.heard({"a": clock.now})
    assert len(ended) == 0
