"""How long to wait before a transaction that others stood in the way of is run again: pure policy, no I/O.

Exponential with full jitter (Marc Brooker, "Exponential Backoff and Jitter", AWS 2015): who collided once must not
collide again because both waited for the same time.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Args:
    attempts: how often the work is run at most.
    first_seconds: the longest pause after the first failure; it doubles with each.
    most_seconds: the longest pause of all.
    """

    attempts: int = 5
    first_seconds: float = 0.02
    most_seconds: float = 0.5

    def pause(self, failures: int, left_seconds: float, rng: random.Random) -> float | None:
        """Seconds to wait after so many failures; None to give up.

        Args:
            left_seconds: until the request's deadline: there is no use in waiting for it.
        """
        if failures >= self.attempts:
            return None
        longest: float = min(self.most_seconds, self.first_seconds * 2 ** (failures - 1))
        seconds = rng.uniform(0, longest)
        return seconds if seconds < left_seconds else None
