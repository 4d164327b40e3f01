"""Who gets how much of the traffic."""

from __future__ import annotations

from typing import Any

import pytest

from app.dev import traffic
from app.dev.roster import Look, Member
from app.mesh.registry.operations import Position
from app.mesh.registry.record import Load
from app.mesh.registry.rules import Rule
from tests.mesh.actors import instance


def look(*rules: Rule, **members: dict[str, Any]) -> Look:
    """Args: members: the facts about each instance of users, by its id."""
    found = [Member(instance(id=id_, **facts), Load(), 0.0, 15.0) for id_, facts in members.items()]
    return Look(Position(), tuple(found), {rule.service: rule for rule in rules})


def test_without_rules_it_goes_by_weight_and_zones_make_no_difference() -> None:
    seen = look(a={"weight": 3.0, "zone": "east"}, b={"zone": "west"})
    assert traffic.shares(seen) == pytest.approx({"a": 0.75, "b": 0.25})


def test_a_rule_gives_a_version_its_share_and_an_instance_its_weight() -> None:
    rule = Rule("users", 1, shares=(("v2", 0.1),), weights=(("a", 2.0),))
    seen = look(rule, a={"version": "v1"}, b={"version": "v1"}, c={"version": "v2"})
    assert traffic.shares(seen) == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1})


def test_who_is_not_ready_gets_nothing_and_a_sandbox_has_a_whole_of_its_own() -> None:
    seen = look(a={}, b={"state": "draining"}, c={"sandbox": "feature-x"})
    assert traffic.shares(seen) == pytest.approx({"a": 1.0, "c": 1.0})


def test_services_do_not_mix() -> None:
    seen = look(a={}, b={"service": "orders", "prefixes": ("/orders",)})
    assert traffic.shares(seen) == pytest.approx({"a": 1.0, "b": 1.0})


def test_nobody_gets_nothing() -> None:
    assert traffic.shares(look()) == {}
