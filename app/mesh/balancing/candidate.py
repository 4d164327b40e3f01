"""What there is to be said about a choice: facts that can be printed, or sent as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.mesh.balancing.endpoint import Endpoint
from app.mesh.balancing.policy import Policy
from app.mesh.balancing.pool import Group, Pool


@dataclass(frozen=True, slots=True)
class Candidate:
    """One peer that a request may go to.

    Args:
        weight: as a rule or the peer itself says.
        share: of the service's requests, from 0 to 1, that it is due now if all do equally well: by versions, zones,
            weights, slow start, and who is out.
        cost_seconds: what a request there usually takes; a failure counts as the whole timeout.
        score: its load, in seconds: the lower one wins.
        state: ``ok``, or why it gets less: ``slow start 30 %``, ``ejected, back in 3.1 s: 5 failures in a row``,
            ``breaker open, probe in 2.0 s: …``, ``avoided for 1.2 s: …``.
    """

    id: str
    url: str
    version: str
    zone: str
    weight: float
    share: float
    cost_seconds: float
    in_flight: int
    score: float
    state: str


def candidates(pool: Pool, policy: Policy, now: float) -> tuple[Candidate, ...]:
    """Those of `pool`, in the order of their ids."""
    live = [group for group in pool.groups if group.is_live]
    total = sum(group.share for group in live)
    shares: dict[Endpoint, float] = {}
    for group in live:
        for endpoint, share in _shares(group, policy):
            shares[endpoint] = share * group.share / total
    found = [_candidate(endpoint, shares.get(endpoint, 0.0), policy, now) for endpoint in pool.home]
    return tuple(sorted(found, key=lambda one: one.id))


def _shares(group: Group, policy: Policy) -> Iterator[tuple[Endpoint, float]]:
    stay = group.stay_share(policy.zone_spill)
    if not group.cells[-1].live:
        stay = 1.0
    for cell, part in zip(group.cells, (stay, 1.0 - stay), strict=False):
        total = sum(endpoint.share for endpoint in cell.live)
        for endpoint in cell.live:
            yield endpoint, part * endpoint.share / total


def _candidate(endpoint: Endpoint, share: float, policy: Policy, now: float) -> Candidate:
    instance = endpoint.instance
    return Candidate(
        id=instance.id,
        url=instance.url,
        version=instance.version,
        zone=instance.zone,
        weight=endpoint.weight,
        share=share,
        cost_seconds=endpoint.cost,
        in_flight=endpoint.in_flight,
        score=endpoint.load(now),
        state=endpoint.story(now) or _pace(endpoint, policy, now),
    )


def _pace(endpoint: Endpoint, policy: Policy, now: float) -> str:
    if endpoint.is_warming(now, policy.slow_start_seconds):
        return f"slow start {endpoint.share:.0%}".replace("%", " %")
    if not endpoint.itself:
        return "ok, not asked yet"
    return "ok"
