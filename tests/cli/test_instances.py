"""Which instance a command means."""

from __future__ import annotations

import pytest

from app.cli import instances
from app.dev.roster import Member
from app.errors import InvalidInput, NotFound
from app.mesh.registry.record import Load
from tests.mesh.actors import instance


def members(*ids: str) -> list[Member]:
    return [Member(instance(id=id_), Load(), 0.0, 15.0) for id_ in ids]


@pytest.mark.parametrize(("word", "meant"), [("users-a", "users-a1"), ("users-b", "users-b"), ("users-b2", "users-b2")])
def test_the_beginning_of_an_id_is_enough_and_a_whole_id_is_itself(word: str, meant: str) -> None:
    assert instances.find(members("users-a1", "users-b", "users-b2"), word).instance.id == meant


def test_who_could_be_several_is_asked_back() -> None:
    with pytest.raises(InvalidInput, match=r"'users-' could be users-a, users-b$"):
        instances.find(members("users-a", "users-b"), "users-")
    with pytest.raises(InvalidInput, match=r"users-4 …$"):
        instances.find(members(*(f"users-{number}" for number in range(9))), "users")


@pytest.mark.parametrize("known", [(), ("orders-a",)])
def test_who_is_not_there_is_said_so(known: tuple[str, ...]) -> None:
    with pytest.raises(NotFound, match="No instance 'users' is registered"):
        instances.find(members(*known), "users")
