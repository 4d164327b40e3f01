"""One service as this process calls it: what is asked of all its instances together, in one place for each call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any

from app import telemetry
from app.mesh.balancing.breaker import Breaker, State
from app.mesh.balancing.breaker import Policy as BreakerPolicy
from app.mesh.balancing.policy import breaker_policy
from app.mesh.calling import retry
from app.mesh.calling.budget import Budget
from app.mesh.calling.latency import Latencies
from app.mesh.observer import Decision, Observer
from app.mesh.registry.record import Instance
from app.mesh.registry.view import Table
from app.settings import BreakerSettings, ClientSettings, ServiceCallSettings

_log = telemetry.log("mesh.calling")

# An attempt may take so many times as long as 99 of 100 calls do before it is given up for another peer.
_PATIENCE = 3.0

# Of a breaker that is switched off.
_NEVER = BreakerPolicy(failure_share=inf)


class Target:
    """A service's breaker, budget and latencies, and what the settings say about calling it."""

    __slots__ = (
        "_attempt_seconds",
        "breaker",
        "budget",
        "hedges",
        "latencies",
        "name",
        "own",
        "policy",
        "timeout_seconds",
    )

    def __init__(self, name: str, settings: ClientSettings, own: ServiceCallSettings, breaker: Breaker) -> None:
        retries = settings.retries if own.retries is None else own.retries
        attempt_seconds = settings.attempt_seconds if own.attempt_seconds is None else own.attempt_seconds
        self.name, self.own, self.breaker = name, own, breaker
        self.budget = Budget(share=settings.retry_share, floor_per_second=settings.retries_per_second)
        self.latencies = Latencies()
        self.policy = retry.Policy(retries=retries) if retries else retry.NEVER
        self.timeout_seconds = own.timeout_seconds or settings.timeout_seconds
        self.hedges = 0
        self._attempt_seconds = attempt_seconds or inf

    def __repr__(self) -> str:
        return f"<Target {self.name}, {self.breaker!r}, {self.budget!r}, {self.latencies!r}>"

    def attempt_seconds(self, left: float) -> float:
        """How long an attempt may be silent before it is better to ask somebody else, with `left` seconds in all."""
        usual = self.latencies.p99 or 0.0
        return max(min(self._attempt_seconds, left / 2), _PATIENCE * usual)

    def is_little(self, seconds: float) -> bool:
        """Whether even half of the calls need longer: that such an attempt ran out of time says nothing of its peer."""
        return self.latencies.median is not None and seconds < self.latencies.median

    def describe(self, now: float) -> dict[str, Any]:
        """Plain values for people."""
        return {
            "breaker": self.breaker.story(now),
            "repetitions_left": round(self.budget.left(now), 1),
            "median_seconds": self.latencies.median,
            "p99_seconds": self.latencies.p99,
            "hedges": self.hedges,
        }


class Targets:
    """All services that have been called. `update` is a directory's listener.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: ClientSettings,
        breaking: BreakerSettings,
        observer: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._settings, self._breaking, self._observer = settings, breaking, observer
        self._clock, self._rng = clock, rng or random.Random()
        self._ready: Mapping[str, tuple[Instance, ...]] = {}
        self._targets: dict[str, Target] = {}
        # Who was there when a service's circuit opened.
        self._blamed: dict[str, frozenset[tuple[str, int]]] = {}

    def __iter__(self) -> Iterator[Target]:
        return iter(self._targets.values())

    def of(self, service: str) -> Target:
        target = self._targets.get(service)
        if target is None:
            own = self._settings.services.get(service, ServiceCallSettings())
            target = Target(service, self._settings, own, self._breaker(service, own))
            # A name that nobody bears may come from anywhere: it is not remembered.
            if service in self._ready:
                self._targets[service] = target
        return target

    def update(self, table: Table) -> None:
        """The list of peers has changed. Who is new owes nothing to the failures of those before: the circuit closes."""
        self._ready = table.ready
        for service, blamed in list(self._blamed.items()):
            if self._identities(service) - blamed:
                self._start_anew(self._targets[service])

    def _start_anew(self, target: Target) -> None:
        del self._blamed[target.name]
        target.breaker = self._breaker(target.name, target.own)
        _log.info("circuit closed: somebody new is there", peer_service=target.name)
        self._observer.decision(Decision("breaker", target.name, State.CLOSED, detail="somebody new is there"))

    def _breaker(self, service: str, own: ServiceCallSettings) -> Breaker:
        timeout_seconds = own.timeout_seconds or self._settings.timeout_seconds
        policy = breaker_policy(self._breaking, timeout_seconds=timeout_seconds) if self._breaking.enabled else _NEVER
        return Breaker(service, policy, self._clock, self._rng, self._changed)

    def _changed(self, breaker: Breaker) -> None:
        service, state = breaker.name, breaker.state
        if state is State.OPEN and service in self._targets:
            self._blamed[service] = self._identities(service)
        elif state is State.CLOSED:
            self._blamed.pop(service, None)
        tell = _log.warning if state is State.OPEN else _log.info
        tell("circuit breaker", peer_service=service, state=state, reason=breaker.reason)
        self._observer.decision(Decision("breaker", service, state, detail=breaker.reason))

    def _identities(self, service: str) -> frozenset[tuple[str, int]]:
        return frozenset((peer.id, peer.generation) for peer in self._ready.get(service, ()))
