"""Power of two choices with peak EWMA, after Finagle's ``P2CPeakEwma``.

Two candidates are drawn at random and the one with the lower load wins, where load = cost · (in flight + 1) / weight.
The cost follows round-trip times: it jumps to a higher one at once and forgets it over `decay_seconds`. A failure
counts as at least `penalty_seconds`, so that failing fast does not look like being fast.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from math import exp
from types import TracebackType
from typing import Self

from app.mesh.registry.record import Instance


@dataclass(frozen=True, slots=True)
class Policy:
    """Args:
    unknown_seconds: cost of a peer that has not answered yet, once it has a request in flight: it is tried at
        once, one request at a time, and so neither flooded nor starved.
    idle_seconds: a peer not picked for this long wins the next draw that it is in, so that an old cost is renewed.
    failing_idle_seconds: the same for one whose last request failed.
    """

    decay_seconds: float = 10.0
    unknown_seconds: float = 1.0
    penalty_seconds: float = 10.0
    idle_seconds: float = 1.0
    failing_idle_seconds: float = 5.0


class Gauge:
    """What this process has seen of one peer. Load is ``cost * (in_flight + itself)``.

    Args:
        itself: 1 where the request to come counts; 0 for a peer that has never answered, so that an idle one is free.
    """

    __slots__ = ("cost", "failing", "generation", "in_flight", "itself", "observed_at", "picked_at")

    def __init__(self, generation: int, now: float, unknown_seconds: float) -> None:
        self.generation = generation
        self.cost, self.itself = unknown_seconds, 0
        self.failing = False
        self.in_flight = 0
        self.observed_at = now
        self.picked_at = now

    def answered(self, seconds: float, now: float, decay_seconds: float) -> None:
        """Finagle's peak EWMA: up at once, down with e^(−Δt/decay). The first answer, also after failures, counts whole."""
        if seconds > self.cost or self.failing or not self.itself:
            self.cost, self.itself, self.failing = seconds, 1, False
        else:
            keep = exp((self.observed_at - now) / decay_seconds)
            self.cost = self.cost * keep + seconds * (1 - keep)
        self.observed_at = now

    def failed(self, seconds: float, now: float) -> None:
        """Not decayed from here: how the peer does when it answers again is all that will count."""
        self.cost, self.itself, self.failing = max(seconds, self.cost if self.itself else 0.0), 1, True
        self.observed_at = now


class Pick:
    """One request at one peer, in flight until the block ends, however it ends.

    Leaving the block normally settles it as a success, if `settle` has not yet said what it was. Leaving it by an
    exception (cancelled, or the sender's own fault) says little about the peer: only that it is at least that slow.
    """

    __slots__ = ("_balancer", "_gauge", "_kept", "_open", "_settled", "peer", "started_at")

    def __init__(self, balancer: Balancer, gauge: Gauge, peer: Instance, now: float) -> None:
        self._balancer, self._gauge = balancer, gauge
        self._open, self._settled, self._kept = True, False, False
        self.peer, self.started_at = peer, now
        gauge.in_flight += 1
        gauge.picked_at = now

    def __repr__(self) -> str:
        return f"<Pick {self.peer.id}, {'in flight' if self._open else 'released'}>"

    def settle(self, *, failed: bool = False) -> float:
        """Record the time so far, once; returns it, in seconds."""
        balancer = self._balancer
        now = balancer.clock()
        seconds = now - self.started_at
        if self._settled:
            return seconds
        self._settled = True
        if failed:
            self._gauge.failed(max(seconds, balancer.policy.penalty_seconds), now)
        else:
            self._gauge.answered(seconds, now, balancer.policy.decay_seconds)
        return seconds

    def release(self) -> None:
        """No longer in flight; does nothing the second time."""
        if self._open:
            self._open = False
            self._gauge.in_flight -= 1

    def keep(self) -> None:
        """Stay in flight beyond the block, for a reply that is still coming; `release` ends it."""
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self._kept:
            self.release()
        if self._settled:
            return
        if kind is None:
            self.settle()
        else:
            self._given_up()

    def _given_up(self) -> None:
        gauge, balancer = self._gauge, self._balancer
        now = balancer.clock()
        if gauge.itself and not gauge.failing and now - self.started_at > gauge.cost:
            gauge.answered(now - self.started_at, now, balancer.policy.decay_seconds)


class Balancer:
    """Chooses peers; one per process, for all services.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.clock = clock
        self._random = (rng or random.Random()).random
        self._idle_seconds = self.policy.idle_seconds
        self._gauges: dict[str, Gauge] = {}

    def __repr__(self) -> str:
        return f"<Balancer {len(self._gauges)} peers, {self.in_flight} in flight>"

    @property
    def in_flight(self) -> int:
        """Requests of this process that are at a peer now."""
        return sum(gauge.in_flight for gauge in self._gauges.values())

    def pick(self, peers: Sequence[Instance], tried: Collection[str] = ()) -> Pick | None:
        """A peer of `peers` whose id is not in `tried`; None if there is none."""
        if tried:
            peers = [peer for peer in peers if peer.id not in tried]
        count = len(peers)
        if count == 0:
            return None
        now = self.clock()
        if count == 1:
            return Pick(self, self._gauge(peers[0], now), peers[0], now)
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        second += second >= first
        return self._better(peers[first], peers[second], now)

    def _better(self, one: Instance, other: Instance, now: float) -> Pick:
        a, b = self._gauge(one, now), self._gauge(other, now)
        if b.cost * (b.in_flight + b.itself) * one.weight < a.cost * (a.in_flight + a.itself) * other.weight:
            one, other, a, b = other, one, b, a
        if b.picked_at < now - self._idle_seconds and self._gets_a_turn(b, a, now):
            return Pick(self, b, other, now)
        return Pick(self, a, one, now)

    def _gets_a_turn(self, loser: Gauge, winner: Gauge, now: float) -> bool:
        """The loser of many draws, now and then: its cost may be old."""
        if loser.in_flight or loser.picked_at >= winner.picked_at:
            return False
        return not loser.failing or loser.picked_at < now - self.policy.failing_idle_seconds

    def _gauge(self, peer: Instance, now: float) -> Gauge:
        gauge = self._gauges.get(peer.id)
        if gauge is None or gauge.generation != peer.generation:
            gauge = self._gauges[peer.id] = Gauge(peer.generation, now, self.policy.unknown_seconds)
        return gauge

    def retain(self, ids: Iterable[str]) -> None:
        """Forget all peers but these; what is still in flight at another is counted until it ends."""
        known = set(ids)
        self._gauges = {id_: gauge for id_, gauge in self._gauges.items() if id_ in known or gauge.in_flight}
