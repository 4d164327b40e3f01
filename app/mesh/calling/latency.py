"""How long calls have taken lately: a histogram over a sliding window; pure, no clock of its own."""

from __future__ import annotations

from math import exp2, log

_FIRST_SECONDS = 0.0001
# Eight buckets to the doubling: a quantile is at most 9 % too high.
_PER_LOG = 8 / log(2)
_BUCKETS = 8 * 20 + 1


class Latencies:
    """Quantiles of what was recorded in the last `window_seconds` or a little less; None while there is nothing.

    Two half windows take turns. The quantiles are worked out once in `refresh_seconds`, not for every question.

    Args:
        window_seconds: how far back it remembers.
        refresh_seconds: how old an answer may be.
    """

    __slots__ = (
        "_counts",
        "_earlier",
        "_fresh_until",
        "_half_seconds",
        "_refresh_seconds",
        "_turn_at",
        "median",
        "p99",
    )

    def __init__(self, *, window_seconds: float = 60.0, refresh_seconds: float = 0.5) -> None:
        self._half_seconds, self._refresh_seconds = window_seconds / 2, refresh_seconds
        self._counts, self._earlier = [0] * _BUCKETS, [0] * _BUCKETS
        self._turn_at = self._fresh_until = 0.0
        self.median: float | None = None
        self.p99: float | None = None

    def __repr__(self) -> str:
        if self.median is None or self.p99 is None:
            return "<Latencies, nothing recorded>"
        return f"<Latencies median {self.median * 1000:.1f} ms, p99 {self.p99 * 1000:.1f} ms>"

    def record(self, seconds: float, now: float) -> None:
        """One call took `seconds`, and ended at `now` (monotonic seconds)."""
        if now >= self._turn_at:
            self._turn(now)
        place = int(log(seconds / _FIRST_SECONDS) * _PER_LOG) + 1 if seconds > _FIRST_SECONDS else 0
        self._counts[place if place < _BUCKETS else _BUCKETS - 1] += 1
        if now >= self._fresh_until:
            self._refresh(now)

    def quantile(self, share: float) -> float | None:
        """The upper edge of the bucket in which `share` of all is reached; None while there is nothing."""
        total = sum(self._counts) + sum(self._earlier)
        if total == 0:
            return None
        reached = 0
        for place, (count, earlier) in enumerate(zip(self._counts, self._earlier, strict=True)):
            reached += count + earlier
            if reached >= share * total:
                return _edge(place)
        return _edge(_BUCKETS - 1)

    def _turn(self, now: float) -> None:
        idle = now >= self._turn_at + self._half_seconds
        self._earlier = [0] * _BUCKETS if idle else self._counts
        self._counts = [0] * _BUCKETS
        self._turn_at = now + self._half_seconds

    def _refresh(self, now: float) -> None:
        self._fresh_until = now + self._refresh_seconds
        self.median, self.p99 = self.quantile(0.5), self.quantile(0.99)


def _edge(place: int) -> float:
    return _FIRST_SECONDS * exp2(place / 8)
