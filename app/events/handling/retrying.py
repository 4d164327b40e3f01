"""What a failed handler is followed by: another try, after a pause, or the dead letters. It decides and touches nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

from app.errors import MeshError, Unavailable

# An event that was handed out so often without an end takes its process down each time. Innocent ones that were merely under way
# are handed out again, too: hence so many.
MOST_DELIVERIES = 25


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`tries` in all; pauses from `first_seconds`, doubling up to `longest_seconds`, with equal jitter."""

    tries: int
    first_seconds: float
    longest_seconds: float

    def pause(self, failures: int, rng: random.Random) -> float:
        """Seconds after so many failures in a row."""
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))
        return longest * rng.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after `seconds`; `counted`: it was the handler's own failure."""

    seconds: float
    counted: bool


@dataclass(frozen=True, slots=True)
class Bury:
    """To the dead letters."""


def decide(policy: RetryPolicy, error: Exception, *, failures: int, waits: int, rng: random.Random) -> Again | Bury:
    """What follows `error`.

    Args:
        failures: how often the handler has failed by now, including this time if it was its own fault.
        waits: how often in a row it was its surroundings', including this time if it was theirs.
    """
    if is_surroundings(error):
        return Again(policy.pause(waits, rng), counted=False)
    if failures >= policy.tries:
        return Bury()
    return Again(policy.pause(failures, rng), counted=True)


def is_surroundings(error: Exception) -> bool:
    """Whether our own database or Redis is away: that is no fault of the event's, and it can wait for as long as it takes.

    A peer that does not answer is another matter: it may be this very event that it can't digest.
    """
    return isinstance(error, Unavailable) and not isinstance(error, MeshError)
