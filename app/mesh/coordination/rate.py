"""A rate limit for the whole fleet: token buckets in Redis, and each process's share of them while Redis is away."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from app.errors import Misconfigured, TooManyRequests, Unavailable
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import Keys
from app.mesh.observer import Decision, Observer

_TAKE = lines.load("app.mesh.coordination", "take")
_MOST_CALLERS = 10_000
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many `tokens` in `seconds`; a bucket holds `burst` of them (default: `tokens`)."""

    tokens: float
    seconds: float = 1.0
    burst: int = 0

    def __post_init__(self) -> None:
        if self.tokens <= 0 or self.seconds <= 0 or self.size < 1:
            raise Misconfigured(f"{self!r}: tokens and seconds must be positive, and a bucket must hold one token")

    def __str__(self) -> str:
        return f"{self.tokens:g} in {self.seconds:g} s, {self.size} at once"

    @property
    def size(self) -> int:
        return self.burst or math.floor(self.tokens)

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``100/minute`` (second, minute, hour, day). Raises: Misconfigured."""
        tokens, _, unit = text.partition("/")
        try:
            return cls(float(tokens), _UNITS[unit.strip()])
        except (ValueError, KeyError):
            raise Misconfigured(f"Rate {text!r}: expected something like 100/minute") from None

    def share(self, instances: int) -> Rate:
        """What one of so many processes may let through, so that all together keep to the rate."""
        parts = max(1, instances)
        return Rate(self.tokens / parts, self.seconds, max(1, self.size // parts))


class Verdict(NamedTuple):
    """What a limit says.

    Args:
        remaining: whole tokens left.
        retry_after: seconds until this many may be taken, 0 if they were.
        reset: seconds until the bucket is full again.
        source: who says it: Redis for the fleet, or this process for its share.
    """

    allowed: bool
    remaining: int
    retry_after: float
    reset: float
    source: Literal["redis", "local"]


class LocalBuckets:
    """GCRA in this process. Bounded: the caller that was not seen for longest is forgotten first."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, most: int = _MOST_CALLERS) -> None:
        self._clock, self._most = clock, most
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, caller: str, rate: Rate, cost: int = 1) -> Verdict:
        now, step = self._clock(), rate.seconds_per_token
        room = step * rate.size
        full = min(max(self._full_at.get(caller, now), now), now + room)
        following = full + step * cost
        # What is left after a rounding of floats must neither refuse nor give a whole token.
        wait = following - room - now
        if wait > step * 1e-6:
            return Verdict(False, _whole((now + room - full) / step), wait, full - now, "local")
        self._full_at[caller] = following
        self._full_at.move_to_end(caller)
        if len(self._full_at) > self._most:
            self._full_at.popitem(last=False)
        return Verdict(True, _whole((now + room - following) / step), 0.0, following - now, "local")


class Limiter:
    """One limit, for any number of callers.

    Args:
        name: the limit's; one of few.
        instances: how many processes share the rate, as far as is known; asked while Redis is away.
    """

    def __init__(
        self,
        name: str,
        rate: Rate,
        *,
        line: Line,
        keys: Keys,
        observer: Observer,
        instances: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.rate = name, rate
        self._line, self._keys, self._observer = line, keys, observer
        self._instances = instances
        self._local = LocalBuckets(clock=clock)

    def __repr__(self) -> str:
        return f"<Limiter {self.name}, {self.rate}, {self._line!r}>"

    async def take(self, caller: str, cost: int = 1) -> Verdict:
        """Take `cost` tokens from `caller`'s bucket, if they are there: one round trip, or none if Redis is away.

        Raises:
            ValueError: no bucket is ever that full.
        """
        if not 0 < cost <= self.rate.size:
            raise ValueError(f"{cost} tokens can't be had from a bucket of {self.rate.size}")
        try:
            verdict = await self._take(caller, cost)
        except Unavailable:
            share = self.rate.share(self._instances())
            verdict = self._local.take(caller, share, min(cost, share.size))
        outcome = "allowed" if verdict.allowed else "limited"
        self._observer.decision(Decision("rate", self.name, f"{outcome}_{verdict.source}"))
        return verdict

    async def require(self, caller: str, cost: int = 1) -> Verdict:
        """As `take`. Raises: TooManyRequests: with the seconds to wait."""
        verdict = await self.take(caller, cost)
        if not verdict.allowed:
            raise TooManyRequests(f"The limit {self.name} is used up", retry_after=verdict.retry_after)
        return verdict

    async def _take(self, caller: str, cost: int) -> Verdict:
        step_us = max(1, round(self.rate.seconds_per_token * 1e6))
        key = self._keys.rate(self.name, hashlib.blake2b(caller.encode(), digest_size=12).hexdigest())
        taken, left, wait, reset = await self._line.run(_TAKE, (key,), (step_us, self.rate.size, cost))
        return Verdict(bool(taken), left, wait / 1e6, reset / 1e6, "redis")


def _whole(tokens: float) -> int:
    return max(0, math.floor(tokens + 1e-6))
