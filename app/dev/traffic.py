"""Who gets how much of a service's traffic, as rules, weights and states have it: the balancer's own sums."""

from __future__ import annotations

from collections.abc import Mapping

from app.dev.roster import Look
from app.mesh.balancing.balancer import Balancer
from app.mesh.registry.record import Instance
from app.mesh.registry.view import Table

# By instance id: of the requests of its service, or of its sandbox there, from 0 to 1; who gets none is not named.
Shares = Mapping[str, float]


def shares(look: Look) -> Shares:
    """What each instance is due, all zones taken together.

    What a caller sees of its peers (slow, failing, just joined) moves its own requests from this; that is for
    `mesh call --explain` and `mesh inspect` to tell.
    """
    instances: dict[str, tuple[Instance, ...]] = {}
    for member in look.members:
        instances[member.instance.service] = (*instances.get(member.instance.service, ()), member.instance)
    balancer = Balancer()
    balancer.update(Table(instances=instances, rules=look.rules))
    kinds = {(member.instance.service, member.instance.sandbox) for member in look.members}
    return {
        candidate.id: candidate.share
        for service, sandbox in kinds
        for candidate in balancer.explain(service, sandbox=sandbox)
    }
