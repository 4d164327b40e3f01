"""``Prefer: wait=2`` (RFC 7240): how long a client would like to wait for an outcome, before it hears that there is none yet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import request
from werkzeug.http import parse_list_header

from app import context
from app.web.documents.documenting import Addition, add

V = TypeVar("V", bound=Callable[..., Any])

LONGEST_SECONDS = 30
# Of the request's time: what it takes to look once more, and to answer.
_RESERVE_SECONDS = 0.25

_PREFERENCE = re.compile(r'wait[ \t]*(?:=[ \t]*"?(?P<seconds>[0-9]{1,9})"?)?[ \t]*(?:;.*)?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wait:
    """`seconds` is what the client may wait, and what it is told; `left` is what its request has left, if that is less."""

    seconds: int
    left: float

    @property
    def longest_seconds(self) -> float:
        return max(0.0, min(float(self.seconds), self.left))

    @property
    def headers(self) -> dict[str, str]:
        """For the answer."""
        return {"Preference-Applied": f"wait={self.seconds}"}


def patient(view: V) -> V:
    """For a view that goes by `preferred_wait`: its document says so."""
    return add(view, _describe)


def preferred_wait() -> Wait | None:
    """What this request prefers; None if it does not say, or not in whole seconds: no preference is an error."""
    seconds = _seconds(",".join(request.headers.getlist("Prefer")))
    if seconds is None:
        return None
    current = context.current()
    left = float(LONGEST_SECONDS) if current is None else current.remaining_seconds() - _RESERVE_SECONDS
    return Wait(min(seconds, LONGEST_SECONDS), left)


def _seconds(header: str) -> int | None:
    for preference in parse_list_header(header):
        if found := _PREFERENCE.fullmatch(preference.strip()):
            # The first one counts, whatever follows (RFC 7240, 2).
            return None if found["seconds"] is None else int(found["seconds"])
    return None


def _describe(method: str, path: str) -> Addition:
    return Addition(
        asked={"Prefer": f"wait=2 waits up to so many seconds for the outcome, {LONGEST_SECONDS} at most (RFC 7240)."},
        shown={"Preference-Applied": "How long it would have waited, if the request preferred that."},
    )
