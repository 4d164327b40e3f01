"""A clock that is moved, tables made by hand, and verbs: what a request does to a peer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from app.mesh.balancing.balancer import Balancer, Candidate, Outcome, Pick, Policy
from app.mesh.observer import Decision
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule
from app.mesh.registry.view import Table
from tests.mesh.actors import instance

QUICK_SECONDS = 0.01


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def peer(name: str, **changes: Any) -> Instance:
    return instance(id=name, **changes)


def table_of(*peers: Instance, rule: Rule | None = None) -> Table:
    services: dict[str, tuple[Instance, ...]] = {}
    for one in peers:
        services[one.service] = (*services.get(one.service, ()), one)
    ready = {service: tuple(p for p in those if p.takes_requests) for service, those in services.items()}
    return Table(instances=services, ready=ready, rules={rule.service: rule} if rule is not None else {})


@dataclass
class Stage:
    """One balancer with its clock and what it has told, and the verbs of the tests."""

    policy: Policy = field(default_factory=Policy)
    zone: str = ""
    seed: int = 7

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.decisions: list[Decision] = []
        self.balancer = Balancer(
            self.policy,
            zone=self.zone,
            clock=self.clock,
            rng=random.Random(self.seed),
            decide=self.decisions.append,
        )
        self.noise = random.Random(11)
        self.peers: dict[str, Instance] = {}

    # ------------------------------------------------------------------------------------- who is there

    def enter(self, *peers: Instance | str, rule: Rule | None = None) -> None:
        """The table says that exactly these are there."""
        there = [peer(one) if isinstance(one, str) else one for one in peers]
        self.peers = {one.id: one for one in there}
        self.balancer.update(table_of(*there, rule=rule))

    # ------------------------------------------------------------------------------------- requests

    def pick(
        self,
        only: str | None = None,
        tried: Collection[str] = (),
        *,
        sandbox: str | None = None,
        key: str | None = None,
    ) -> Pick:
        """A request in flight; `only` one peer, if it must be that one."""
        if only is not None:
            tried = [name for name in self.peers if name != only]
        pick = self.balancer.pick("users", tried=tried, sandbox=sandbox, key=key)
        assert pick is not None
        assert only in {None, pick.peer.id}
        return pick

    def ask(
        self,
        only: str | None = None,
        outcome: Outcome = Outcome.OK,
        seconds: float = QUICK_SECONDS,
        tried: Collection[str] = (),
        key: str | None = None,
    ) -> str:
        """One request from beginning to end; who got it."""
        with self.pick(only, tried, key=key) as pick:
            self.clock.now += seconds
            pick.settle(outcome)
        return pick.peer.id

    def fail(self, only: str | None = None, times: int = 1, seconds: float = QUICK_SECONDS) -> None:
        for _ in range(times):
            self.ask(only, Outcome.FAILED, seconds)

    def eject(self, name: str) -> None:
        """As it happens to the worst: five failures in a row."""
        self.fail(name, times=5)
        assert self.is_out(name)

    def give_up(self, only: str | None = None, seconds: float = QUICK_SECONDS) -> str:
        """A request whose sender is cancelled after so long."""
        pick = self.pick(only)
        self.clock.now += seconds
        pick.__exit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        return pick.peer.id

    def serve(self, seconds: dict[str, float], n: int, sandbox: str | None = None) -> Counter[str]:
        """n requests one after another, each within 10 % of its peer's usual time; who got them."""
        picked: Counter[str] = Counter()
        for _ in range(n):
            with self.pick(sandbox=sandbox) as pick:
                self.clock.now += seconds[pick.peer.id] * self.noise.uniform(0.9, 1.1)
            picked[pick.peer.id] += 1
        return picked

    def spread(self, n: int, sandbox: str | None = None) -> Counter[str]:
        """n requests one after another to peers of equal speed; who got them."""
        return self.serve(dict.fromkeys(self.peers, QUICK_SECONDS), n, sandbox)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    # ------------------------------------------------------------------------------------- what is to be seen

    def seen(self, name: str) -> Candidate:
        return next(one for one in self.balancer.explain("users") if one.id == name)

    def is_out(self, name: str) -> bool:
        return self.seen(name).share == 0.0

    def told(self) -> list[tuple[str, str, str]]:
        """(kind, outcome, instance) of each decision so far."""
        return [(one.kind, one.outcome, one.instance) for one in self.decisions]
