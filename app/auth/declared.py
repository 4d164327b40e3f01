"""Which rule a view has declared. The nearest one counts: the method's, the view's, its blueprint's, that one's parent's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Conjoint(Protocol):
    """What can be declared: two declarations at one place are one that asks for both."""

    def __and__(self, other: Any, /) -> Any: ...


# `functools.wraps` carries it on to the wrapper of any decorator that stands above.
_ATTRIBUTE = "__mesh_rule__"


def declare(target: T, rule: Conjoint) -> T:
    """Write `rule` on a view function, a view class or a blueprint; what was declared before must hold as well."""
    before = _own(target)
    setattr(target, _ATTRIBUTE, rule if before is None else before & rule)
    return target


def of(view: Any, method: str, blueprints: Iterable[Any] = ()) -> Any:
    """The rule of `view` for `method`; None if nobody has said anything.

    Args:
        view: the view function, as Flask has it.
        blueprints: that it was registered with, the nearest first.
    """
    view_class = getattr(view, "view_class", None)
    handler = None if view_class is None else getattr(view_class, method.lower(), None)
    if handler is None and method == "HEAD":
        # Flask's own: without a `head` of its own, a class answers with its `get`.
        handler = getattr(view_class, "get", None)
    for place in (handler, view, view_class, *blueprints):
        rule = None if place is None else _own(place)
        if rule is not None:
            return rule
    return None


def _own(target: Any) -> Any:
    return getattr(target, _ATTRIBUTE, None)
