"""Rules that an operator sets at run time: how much of a service's traffic a version gets, and what an instance weighs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One service's rule, whole; the one with the highest revision holds everywhere.

    Args:
        revision: grows with every change of the service's rule.
        shares: (version, fraction of the traffic from 0 to 1); versions that are not named share the rest by weight.
        weights: (instance id, weight), in the place of what the instance says of itself.
    """

    service: str
    revision: int
    shares: tuple[tuple[str, float], ...] = ()
    weights: tuple[tuple[str, float], ...] = ()
