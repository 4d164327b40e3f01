"""What somebody asks the cache for, and what a loader may answer besides a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from app.mesh.cache.remote import EVERYTHING, KEY, TAG

Seconds = float | timedelta
Loader = Callable[[], Awaitable[Any]]

_LONGEST_TAG = 200


class Uncached(Exception):
    """Raised by a loader: this outcome is no failure, and is not to be kept. It reaches everybody who waits for it."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Returned by a loader: `value`, to be kept for `ttl` seconds, whatever was asked for."""

    value: Any
    ttl: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One value, and how it is made; times in seconds.

    Args:
        name: its short name, one of few, for metrics.
        ttl, negative, stale: how long it is fresh; how long it is believed that there is none; how long it stands in
            when the loader fails.
        inline: whether the loader runs in its caller's own task.
    """

    key: str
    name: str
    loader: Loader
    tags: frozenset[str]
    ttl: float
    negative: float
    stale: float
    inline: bool

    @property
    def names(self) -> tuple[str, ...]:
        """What makes it old if it is invalidated."""
        return names(self.key, self.tags)


def names(key: str, tags: Collection[str]) -> tuple[str, ...]:
    return (KEY + key, *(TAG + tag for tag in tags))


def seconds(time: Seconds | None, default: float) -> float:
    if time is None:
        return default
    return time.total_seconds() if isinstance(time, timedelta) else time


def check_key(key: str) -> str:
    """Raises: TypeError, ValueError: no key."""
    if not isinstance(key, str):
        raise TypeError(f"A cache key is a string, not {type(key).__name__}")
    if not key:
        raise ValueError("A cache key can't be empty")
    return key


def check_tags(tags: Collection[str]) -> frozenset[str]:
    """Raises: TypeError, ValueError: no tags."""
    if isinstance(tags, str):
        raise TypeError(f"Tags are a collection of strings: write ({tags!r},)")
    found = frozenset(tags)
    for tag in found:
        if not isinstance(tag, str):
            raise TypeError(f"A cache tag is a string, not {type(tag).__name__}")
        if not tag or len(tag) > _LONGEST_TAG or tag == EVERYTHING:
            raise ValueError(f"A cache tag has 1 to {_LONGEST_TAG} characters and is not {EVERYTHING!r}: {tag[:40]!r}")
    return found
