"""How long somebody stays out who has failed so many times in a row."""

from __future__ import annotations

import random


def out_seconds(first: float, longest: float, times: int, rng: random.Random) -> float:
    """Equal jitter (AWS, "Exponential Backoff And Jitter"): half of it fixed, half of it drawn.

    Args:
        times: how often it has been out before in the same trouble; the ceiling doubles with each.
    """
    ceiling = min(longest, first * 2.0 ** min(times, 32))
    return ceiling / 2 + rng.uniform(0.0, ceiling / 2)
