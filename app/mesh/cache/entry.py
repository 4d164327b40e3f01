"""One cached value in this process, and when it is fresh, due for a refresh, or of use at all."""

from __future__ import annotations

import math
import random
from typing import Any

from app.mesh.cache import codec
from app.mesh.cache.codec import Payload

# -ln of the smallest number that random.random() draws besides 0: no refresh comes earlier than this many costs.
_EARLIEST = 37.0
# An entry's objects besides its bytes, about.
_OVERHEAD_BYTES = 400

_IMMUTABLE = (str, int, float, bool, bytes, type(None))
_UNREAD = object()


class Entry:
    """Times are those of the local clock, in seconds.

    Attributes:
        name: the short name of what is cached, for metrics.
        made_at, expires, stale_until: made, fresh until, usable until (when a loader fails).
        early: before this it is certainly not due for a refresh; all that a hit has to look at.
        cost: seconds that it took to make.
        stamp: of whoever stored it in Redis; empty if nobody did.
        retry_at: after a loader's failure: not to be tried again before.
        outcome: what a hit on it counts as.
    """

    __slots__ = (
        "_value", "cost", "early", "expires", "key", "made_at", "name", "outcome", "payload", "retry_at", "size", "stale_until",
        "stamp", "tags",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        name: str,
        payload: Payload,
        *,
        made_at: float,
        expires: float,
        stale_until: float,
        cost: float = 0.0,
        beta: float = 1.0,
        tags: frozenset[str] = frozenset(),
        stamp: str = "",
    ) -> None:
        self.key, self.name, self.payload, self.tags, self.stamp = key, name, payload, tags, stamp
        self.made_at, self.expires, self.stale_until, self.cost = made_at, expires, stale_until, cost
        self.early = expires - _EARLIEST * cost * beta
        self.retry_at = -math.inf
        self.outcome = "negative" if payload.negative else "hit_local"
        self.size = len(payload.data) + len(key) + sum(map(len, tags)) + _OVERHEAD_BYTES
        self._value: Any = _UNREAD

    def __repr__(self) -> str:
        return f"<Entry {self.key} {self.payload.kind}, {len(self.payload.data)} bytes, tags {sorted(self.tags)}>"

    def value(self) -> Any:
        """What was cached: a fresh object each time unless it can't be changed. Raises: NotFound: that was."""
        if self._value is not _UNREAD:
            return self._value
        value = codec.decode(self.payload)
        if type(value) in _IMMUTABLE:
            self._value = value
        return value

    def due(self, now: float, beta: float, rng: random.Random) -> bool:
        """XFetch (Vattani, Chierichetti, Lowenstein, VLDB 2015): whether this caller should refresh it early."""
        return now - self.cost * beta * math.log(1.0 - rng.random()) >= self.expires

    def shorten(self, expires: float) -> None:
        """Fresh until `expires` at the latest."""
        self.expires = min(self.expires, expires)
        self.early = min(self.early, self.expires)

    def hold(self, until: float) -> None:
        """No refresh before `until`."""
        self.retry_at = until
        self.early = min(max(self.early, until), self.expires)
