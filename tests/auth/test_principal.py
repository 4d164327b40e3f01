from __future__ import annotations

import dataclasses

import pytest

from app.auth import Principal, bearer
from app.auth.bearer import Bearer

USER = Principal("7", "web", session="s")
PROGRAM = Principal("orders", "orders")
STAND_IN = Principal("7", "web", session="s", actor="orders")


def test_a_program_is_who_speaks_for_itself() -> None:
    assert [who.is_client for who in (USER, PROGRAM, STAND_IN)] == [False, True, False]
    # A user may be called as a client is: a session is a user's.
    assert not Principal("orders", "orders", session="s").is_client


def test_the_caller_is_the_service_that_calls_now() -> None:
    assert [who.caller for who in (USER, PROGRAM, STAND_IN)] == [None, "orders", "orders"]


def test_a_user_owns_what_bears_the_users_name_and_a_program_nothing() -> None:
    assert all(USER.owns(name) for name in (7, "7"))
    assert not any(USER.owns(name) for name in (None, "", 77, "07", "8", True))
    assert not PROGRAM.owns("orders")
    assert STAND_IN.owns(7)


def test_nobody_changes_who_they_are() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        USER.subject = "8"  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("held", "token"),
    [
        (Bearer(), None),
        (Bearer("t", USER), "t"),
        (Bearer("t", STAND_IN), "t"),
        (Bearer("t", PROGRAM), None),
        (Bearer("t", None), None),
    ],
    ids=["nobody", "a user", "a service in a user's name", "a program", "a token that is not believed"],
)
def test_only_a_user_can_be_spoken_for(held: Bearer, token: str | None) -> None:
    before = bearer.current.set(held)
    try:
        assert bearer.user_token() == token
    finally:
        bearer.current.reset(before)
