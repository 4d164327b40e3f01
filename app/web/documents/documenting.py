"""What decorators of views add to the OpenAPI document: the headers that they look at, and how they answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from werkzeug.routing import Rule as Route

V = TypeVar("V", bound=Callable[..., Any])
Operation = dict[str, Any]

# `functools.wraps` carries it on to the wrapper of any decorator that stands above.
_ATTRIBUTE = "__mesh_document__"
_VARIABLE = re.compile(r"<(?:[^<>:]+:)?([^<>]+)>")
_SHOWING = ("200", "201", "202")


@dataclass(frozen=True, slots=True)
class Addition:
    """Args:
    asked: request headers, with what they mean.
    answers: by status, as OpenAPI has them.
    shown: headers of the answers that show something, with what they mean.
    """

    asked: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)


# Of a method and a path, whose variables stand in braces.
Describe = Callable[[str, str], Addition]


def add(view: V, describe: Describe) -> V:
    """Let the operations of `view` have what `describe` says."""
    setattr(view, _ATTRIBUTE, (*getattr(view, _ATTRIBUTE, ()), describe))
    return view


def complete(document: dict[str, Any], routes: Iterable[Route], views: Mapping[str, Callable[..., Any]]) -> None:
    """Write into `document`, as plain values, what was added to the views.

    Args:
        views: by endpoint.
    """
    for route, path, method, operation in operations(document, routes):
        for describe in getattr(views[route.endpoint], _ATTRIBUTE, ()):
            _write(operation, describe(method, path))


def operations(document: dict[str, Any], routes: Iterable[Route]) -> Iterator[tuple[Route, str, str, Operation]]:
    """Each route's operations in `document`, with their paths and methods."""
    for route in routes:
        path = _VARIABLE.sub(r"{\1}", route.rule)
        for method, operation in document["paths"].get(path, {}).items():
            if method.upper() in (route.methods or ()):
                yield route, path, method.upper(), operation


def _write(operation: Operation, addition: Addition) -> None:
    parameters = [
        {"name": name, "in": "header", "required": False, "description": said, "schema": {"type": "string"}}
        for name, said in addition.asked.items()
    ]
    if parameters:
        operation["parameters"] = [*operation.get("parameters", ()), *parameters]
    answers = operation["responses"]
    answers |= {str(status): answer for status, answer in addition.answers.items()}
    for status in _SHOWING:
        if status in answers and addition.shown:
            answers[status]["headers"] = answers[status].get("headers", {}) | _headers(addition.shown)


def _headers(shown: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": said, "schema": {"type": "string"}} for name, said in shown.items()}
