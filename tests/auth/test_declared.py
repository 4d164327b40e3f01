from __future__ import annotations

import functools
from typing import Any

import pytest
from flask import Blueprint
from flask.views import MethodView, View

from app.auth import declared, public, requires

A, B, C = requires("a"), requires("b"), requires("c")


def view() -> str:
    return ""


def test_what_nobody_has_said_is_none() -> None:
    assert declared.of(view, "GET", [Blueprint("b", __name__)]) is None


def test_a_view_is_handed_back_as_it_is_and_knows_its_rule() -> None:
    def own() -> str:
        return "own"

    assert A(own) is own
    assert declared.of(own, "GET") == A


def test_two_declarations_at_one_place_ask_for_both() -> None:
    @A
    @B
    def own() -> str:
        return ""

    assert declared.of(own, "GET") == B & A
    blueprint = A(B(Blueprint("b", __name__)))
    assert declared.of(view, "GET", [blueprint]) == B & A


def test_public_above_a_rule_takes_nothing_from_it() -> None:
    @public
    @A
    def own() -> str:
        return ""

    assert not declared.of(own, "GET").is_public


def test_a_decorator_above_carries_it_on() -> None:
    @functools.wraps(A(lambda: ""))
    def wrapper(*args: Any) -> str:
        return ""

    assert declared.of(wrapper, "GET") == A


def test_the_nearest_one_counts() -> None:
    outer, inner = A(Blueprint("outer", __name__)), B(Blueprint("inner", __name__))

    @C
    def own() -> str:
        return ""

    assert declared.of(own, "GET", [inner, outer]) == C
    assert declared.of(view, "GET", [inner, outer]) == B
    assert declared.of(view, "GET", [Blueprint("silent", __name__), outer]) == A


class Things(MethodView):
    @A
    def get(self) -> str:
        return ""

    def post(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("method", "rule"), [("GET", A), ("HEAD", A), ("POST", B)], ids=["its own", "as GET", "the class's"]
)
def test_of_a_class_the_methods_come_before_the_class(method: str, rule: Any) -> None:
    class Own(Things):
        pass

    assert declared.of(B(Own).as_view("own"), method) == rule
    assert declared.of(Things.as_view("things"), "POST") is None


def test_a_class_with_a_head_of_its_own_is_asked_for_that() -> None:
    class Own(Things):
        @C
        def head(self) -> str:
            return ""

    assert declared.of(Own.as_view("own"), "HEAD") == C


def test_a_subclass_has_what_its_parent_has_declared_and_gives_nothing_back() -> None:
    @A
    class Parent(View):
        pass

    class Child(Parent):
        pass

    assert declared.of(Child.as_view("child"), "GET") == A
    B(Child)
    assert declared.of(Child.as_view("child"), "GET") == A & B
    assert declared.of(Parent.as_view("parent"), "GET") == A


def test_a_rule_of_the_view_that_a_class_becomes_comes_before_the_class() -> None:
    class Own(MethodView):
        def get(self) -> str:
            return ""

    assert declared.of(B(A(Own).as_view("own")), "GET") == B
