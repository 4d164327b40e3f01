"""The numbers of the balancer, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from app.mesh.balancing import breaker, outlier
from app.settings import BalancingSettings, BreakerSettings, StrategyName


@dataclass(frozen=True, slots=True)
class Policy:
    """Args:
    strategy, strategies: the default one, and those of certain services.
    decay_seconds: how fast a peer's peak cost is forgotten.
    unknown_seconds: cost of a peer that has not answered yet, once it has a request in flight: it is tried at
        once, one request at a time, and so neither flooded nor starved.
    penalty_seconds: the least cost of a failure.
    idle_seconds: a peer not picked for this long wins the next draw that it is in, so that an old cost is renewed.
    failing_idle_seconds: the same for one whose last request failed.
    rejected_seconds: how long one that said that it did nothing (overloaded, draining) is left alone; short, because
        under a general overload the others are no better.
    slow_start_seconds, slow_start_share: a peer that joins, or comes back from having been out, gets this share of
        its weight at first, rising to the whole of it within that time; 0 seconds: no slow start.
    zone_spill: while at least this share of the own zone's peers is in, all requests stay in the zone; below it they
        stay in proportion, and the rest spills over (the reciprocal of Envoy's overprovisioning factor of 1.4).
    tend_seconds: how often, at most, silence, slow start and the ends of ejections are looked after.
    ejection, breaker: None: none.
    """

    strategy: StrategyName = "p2c"
    strategies: Mapping[str, StrategyName] = field(default_factory=dict)
    decay_seconds: float = 10.0
    unknown_seconds: float = 1.0
    penalty_seconds: float = 10.0
    idle_seconds: float = 1.0
    failing_idle_seconds: float = 5.0
    rejected_seconds: float = 0.1
    slow_start_seconds: float = 10.0
    slow_start_share: float = 0.1
    zone_spill: float = 0.7
    tend_seconds: float = 0.25
    ejection: outlier.Policy | None = field(default_factory=outlier.Policy)
    breaker: breaker.Policy | None = field(default_factory=breaker.Policy)


def breaker_policy(settings: BreakerSettings, *, timeout_seconds: float) -> breaker.Policy:
    """Args:
    timeout_seconds: the longest that a call may take by default; `slow_share` is a share of it.
    """
    slow = settings.slow_share * timeout_seconds if settings.slow_share else inf
    return breaker.Policy(
        failure_share=settings.failure_share,
        slow_seconds=slow,
        open_seconds=settings.open_seconds,
        longest_open_seconds=max(settings.open_seconds, breaker.Policy().longest_open_seconds),
    )


def balancer_policy(balancing: BalancingSettings, breaking: BreakerSettings, *, timeout_seconds: float) -> Policy:
    """Args:
    timeout_seconds: the longest that a call may take by default; a failure costs at least as much.
    """
    return Policy(
        strategy=balancing.strategy,
        strategies=dict(balancing.strategies),
        penalty_seconds=timeout_seconds,
        slow_start_seconds=balancing.slow_start_seconds,
        zone_spill=balancing.zone_spill,
        ejection=outlier.Policy() if balancing.ejection else None,
        breaker=breaker_policy(breaking, timeout_seconds=timeout_seconds) if breaking.enabled else None,
    )
