"""Conditional requests (RFC 9110, 13): a version goes out as an ETag, and comes back as a condition.

    GET   If-None-Match: "3"   ─► 304, if that is what would be shown
    PUT   If-Match: "3"        ─► the view hands `expected()` on; whoever makes the change compares in the same statement,
                                  and raises PreconditionFailed

Where a resource is shown to different people in different ways, each way is a `variant` with tags of its own: "3-profile".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from flask import Response, request

from app.data.fields import MAX_ID
from app.data.versions import Expected
from app.errors import BadInput, PreconditionFailed
from app.web.documents.documenting import Addition, add
from app.web.documents.openapi import problem
from app.web.views.decorating import decorating, runner

T = TypeVar("T")
V = TypeVar("V", bound=Callable[..., Any])

_READING = ("GET", "HEAD")
_CONDITIONS = frozenset({"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"})

# RFC 9110, 8.8.3 and 5.6.1. Possessive: no input makes a match go back and try again.
_TAG = r'(W/)?"([\x21\x23-\x7e\x80-\xff]*+)"'
_TAGS = re.compile(rf"[ \t,]*+{_TAG}(?:[ \t]*+,[ \t,]*+{_TAG})*+[ \t,]*+")
_EACH = re.compile(_TAG)
_VERSION = re.compile(r"[1-9][0-9]{0,18}")


def versioned(view: V) -> V:
    """For a view whose answers are `tagged`, or that asks what is `expected`; it stands directly above the function.

    A GET is answered with 304 where that says it all.
    """

    @decorating(view)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        response = await runner(view, args, kwargs)()
        if request.method in _READING and not _CONDITIONS.isdisjoint(request.environ):
            return _conditional(response)
        return response

    return cast(V, add(wrapper, _describe))


def tagged(
    body: T, version: int, *, status: int = 200, variant: str = "", headers: Mapping[str, str] | None = None
) -> tuple[T, int, dict[str, str]]:
    """What a view returns to show a `version` of something."""
    tag = f'"{version}-{variant}"' if variant else f'"{version}"'
    return body, status, {"ETag": tag, **(headers or {})}


def expected() -> Expected:
    """The versions for which this request is meant; None if it does not say, or says "any".

    Tags that are weak or not ours, and those of variants, which are not what a change replaces, name no version.

    Raises:
        BadInput: If-Match is malformed.
    """
    tags = _if_match()
    if tags is None:
        return None
    numbers = (int(tag) for tag in tags if _VERSION.fullmatch(tag))
    return frozenset(number for number in numbers if number <= MAX_ID)


def _if_match() -> frozenset[str] | None:
    """The strong tags of If-Match. Raises: BadInput."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    if _TAGS.fullmatch(header) is None:
        raise BadInput("If-Match must be * or a list of entity tags in double quotes")
    return frozenset(tag for weak, tag in _EACH.findall(header) if not weak)


def _conditional(response: Response) -> Response:
    """Not `make_conditional`: that takes ``If-Match: *`` for a tag, and answers 412 with what was to be shown."""
    wanted, tag = _if_match(), response.get_etag()[0]
    if response.status_code != 200 or tag is None:
        return response
    if wanted is not None and tag not in wanted:
        raise PreconditionFailed("It is not what If-Match names")
    if request.if_none_match.contains_weak(tag):
        response.status_code = 304
    return response


def _describe(method: str, path: str) -> Addition:
    shown = {"ETag": "The version of what is shown."}
    if "{" not in path:
        return Addition(shown=shown)
    if method in _READING:
        asked = {"If-None-Match": "Tags of what is known already: 304 if it is still the same."}
        return Addition(asked=asked, answers={304: {"description": "Not modified"}}, shown=shown)
    asked = {"If-Match": "Tags of what is to be changed: 412 if it has changed meanwhile."}
    return Addition(asked=asked, answers={412: problem(PreconditionFailed.title)}, shown=shown)
