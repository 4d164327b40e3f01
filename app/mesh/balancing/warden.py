"""Who is in and who is out: hands each result to the peer's judges, moves the peer accordingly, and says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from app import telemetry
from app.mesh.balancing import breaker as breakers
from app.mesh.balancing.breaker import Breaker
from app.mesh.balancing.endpoint import Endpoint
from app.mesh.balancing.outlier import Outlier
from app.mesh.balancing.policy import Policy
from app.mesh.balancing.pool import Cell, Group, Pool
from app.mesh.observer import Decision
from app.mesh.registry.record import Instance

_log = telemetry.log("mesh.balancer")

Decide = Callable[[Decision], None]


class Warden:
    """Args:
    pool_of: the pool that a peer stands in now; None if it is gone, or not ready.
    decide: told every decision.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        decide: Decide,
        pool_of: Callable[[Endpoint], Pool | None],
    ) -> None:
        self._policy, self._clock, self._rng = policy, clock, rng
        self._decide, self._pool_of = decide, pool_of

    def endpoint(self, instance: Instance, now: float) -> Endpoint:
        """A new one, of whom nothing is known."""
        ejection, breaker = self._policy.ejection, self._policy.breaker
        endpoint = Endpoint(
            instance,
            now,
            unknown_seconds=self._policy.unknown_seconds,
            outlier=Outlier(ejection, self._rng) if ejection is not None else None,
        )
        if breaker is not None:
            turned = partial(self._breaker_turned, endpoint)
            endpoint.breaker = Breaker(instance.id, breaker, self._clock, self._rng, turned)
        return endpoint

    # ------------------------------------------------------------------------------------- results

    def answered(self, endpoint: Endpoint, epoch: int, generation: int, seconds: float, now: float) -> None:
        """It did what was asked."""
        endpoint.heard_at = endpoint.succeeded_at = now
        if epoch == endpoint.epoch:
            endpoint.answered(seconds, now, self._policy.decay_seconds)
        if endpoint.outlier is not None and endpoint.outlier.succeed(epoch, now):
            self._returned(endpoint, now)
        if endpoint.breaker is not None:
            endpoint.breaker.record(generation, seconds, failed=False)

    def failed(
        self, endpoint: Endpoint, epoch: int, generation: int, seconds: float, now: float, *, silent: bool = False
    ) -> None:
        """It did not, and that is its fault. Args: silent: it said nothing at all."""
        if epoch == endpoint.epoch:
            endpoint.failed(max(seconds, self._policy.penalty_seconds), now)
        if endpoint.outlier is not None and endpoint.outlier.fail(epoch, now, silent=silent):
            self._ejected(endpoint, endpoint.outlier, now)
        if endpoint.breaker is not None:
            endpoint.breaker.record(generation, seconds, failed=True)

    def rejected(self, endpoint: Endpoint, epoch: int, generation: int, now: float, *, probe: bool) -> None:
        """It answered that it did nothing: no failure, but an answer as quick as that must not attract the next one."""
        endpoint.heard_at = now
        seconds = self._policy.rejected_seconds
        if probe:
            self._let_go(endpoint, epoch, generation, now, seconds)
        self.avoid(endpoint, now, seconds, "it rejected a request")

    def given_up(
        self, endpoint: Endpoint, epoch: int, generation: int, seconds: float, now: float, *, probe: bool
    ) -> None:
        """Nobody waits for it any more. A probe that was given up after a long silence has failed all the same."""
        outlier = endpoint.outlier
        if probe and outlier is not None and seconds >= endpoint.silence_allowed(outlier.policy):
            self.failed(endpoint, epoch, generation, seconds, now)
            return
        if epoch == endpoint.epoch:
            endpoint.given_up(seconds, now, self._policy.decay_seconds)
        if probe:
            self._let_go(endpoint, epoch, generation, now, 0.0)

    def _let_go(self, endpoint: Endpoint, epoch: int, generation: int, now: float, seconds: float) -> None:
        if endpoint.outlier is not None:
            endpoint.outlier.let_go(epoch, now, seconds=seconds)
        if endpoint.breaker is not None:
            endpoint.breaker.let_go(generation)
        self._place(endpoint, now)

    def avoid(self, endpoint: Endpoint, now: float, seconds: float, reason: str) -> None:
        """Leave it alone for so long, though nothing is wrong with it: it is only asked after the others."""
        if now + seconds > endpoint.avoided_until:
            endpoint.avoided_until, endpoint.avoided_for = now + seconds, reason
            self._place(endpoint, now)

    # ------------------------------------------------------------------------------------- time

    def tend(self, pool: Pool, now: float) -> None:
        """What happens by the mere passing of time; to be called when `pool.tend_at` has come."""
        pool.tend_at = now + self._policy.tend_seconds
        for cell in pool.cells():
            for endpoint in cell.peers:
                if endpoint.waiting:
                    self._listen(endpoint, now)
            for endpoint in tuple(cell.out):
                self._look_after(pool, cell, endpoint, now)
        if pool.warming:
            self.warm(pool, now)
        for group in pool.groups:
            group.replaced = group.replaced and not group.is_live
        if pool.panicking and pool.is_live:
            pool.panicking = False
            self._decide(Decision("ejection", pool.service, "calm"))

    def _look_after(self, pool: Pool, cell: Cell, endpoint: Endpoint, now: float) -> None:
        if endpoint.breaker is not None:
            endpoint.breaker.tend(now)
        self.seat(pool, cell, endpoint, now)

    def _listen(self, endpoint: Endpoint, now: float) -> None:
        """Eject who owes answers for too long: a stopped process, which takes connections and says nothing.

        Only if it has been silent at two looks apart: when this process itself stood still, all answers are there,
        unread, and the first look must give the event loop its chance to read them.
        """
        outlier, silent = endpoint.outlier, endpoint.silent_seconds(now)
        if outlier is None or silent < endpoint.silence_allowed(outlier.policy):
            return
        if endpoint.suspected_at < endpoint.heard_at:
            endpoint.suspected_at = now
        elif now - endpoint.suspected_at >= self._policy.tend_seconds / 2 and outlier.fall_silent(now, silent):
            self._ejected(endpoint, outlier, now)

    def warm(self, pool: Pool, now: float) -> None:
        """Raise the shares of those that have joined or come back a while ago."""
        window, least = self._policy.slow_start_seconds, self._policy.slow_start_share
        pool.warming = {endpoint for endpoint in pool.warming if endpoint.is_warming(now, window)}

        def ramp(endpoint: Endpoint) -> float:
            return max(least, (now - endpoint.warm_from) / window) if endpoint in pool.warming else 1.0

        for cell in pool.cells():
            cell.set_shares(ramp)

    # ------------------------------------------------------------------------------------- places

    def seat(self, pool: Pool, cell: Cell, endpoint: Endpoint, now: float) -> None:
        """Put `endpoint` where it belongs by now: in, out, or due for a probe."""
        at = endpoint.returns_at(now)
        if at is None:
            if endpoint.at < 0:
                cell.enter(endpoint)
            return
        if endpoint.at >= 0:
            cell.leave(endpoint)
        cell.not_due(endpoint)
        if at <= now:
            cell.due.append(endpoint)
        else:
            pool.tend_at = min(pool.tend_at, at)

    def probe(self, pool: Pool, cell: Cell, endpoint: Endpoint, now: float) -> int | None:
        """A request goes there to find out: the generation of its breaker; None if it is not due any more."""
        self._look_after(pool, cell, endpoint, now)
        if endpoint not in cell.due:
            return None
        endpoint.heard_at = now
        generation = endpoint.breaker.admit() if endpoint.breaker is not None else 0
        if endpoint.outlier is not None:
            endpoint.outlier.probe()
        self.seat(pool, cell, endpoint, now)
        return generation

    def _place(self, endpoint: Endpoint, now: float) -> None:
        pool = self._pool_of(endpoint)
        cell = pool.home.get(endpoint) if pool is not None else None
        if pool is not None and cell is not None:
            self.seat(pool, cell, endpoint, now)

    def _restart_slowly(self, endpoint: Endpoint, now: float) -> None:
        pool = self._pool_of(endpoint)
        if pool is not None and endpoint in pool.home and not endpoint.is_broken and self._policy.slow_start_seconds:
            endpoint.warm_from = now
            pool.warming.add(endpoint)
            self.warm(pool, now)

    # ------------------------------------------------------------------------------------- what is told

    def _ejected(self, endpoint: Endpoint, outlier: Outlier, now: float) -> None:
        self._place(endpoint, now)
        who = endpoint.instance
        seconds = round(outlier.until - now, 1)
        _log.warning("peer ejected", peer=who.service, peer_id=who.id, reason=outlier.reason, seconds=seconds)
        self._decide(Decision("ejection", who.service, "ejected", who.id, outlier.reason))

    def _returned(self, endpoint: Endpoint, now: float) -> None:
        # How long its probe hung tells nothing about how it does now: a peak like that is forgotten only in a minute.
        endpoint.cost, endpoint.itself, endpoint.failing = self._policy.unknown_seconds, 0, False
        self._place(endpoint, now)
        self._restart_slowly(endpoint, now)
        who = endpoint.instance
        _log.info("peer is back", peer=who.service, peer_id=who.id)
        self._decide(Decision("ejection", who.service, "returned", who.id))

    def _breaker_turned(self, endpoint: Endpoint, breaker: Breaker) -> None:
        now, who = self._clock(), endpoint.instance
        self._place(endpoint, now)
        if breaker.state is breakers.State.CLOSED:
            self._restart_slowly(endpoint, now)
        if breaker.state is breakers.State.OPEN:
            _log.warning("breaker of a peer opened", peer=who.service, peer_id=who.id, reason=breaker.reason)
        self._decide(Decision("breaker", who.service, breaker.state.value, who.id, breaker.reason))

    def panic(self, pool: Pool) -> None:
        """Everybody is out, and somebody has to be picked: said once, until somebody is in again."""
        if not pool.panicking:
            pool.panicking = True
            _log.warning("all peers are out; choosing among all", peer=pool.service)
            self._decide(Decision("ejection", pool.service, "panic"))

    def replace(self, pool: Pool, group: Group) -> None:
        """All peers of a version are out; the others have its share: said once, until one of them is in again."""
        if not group.replaced:
            group.replaced = True
            version = group.version or "versions without a rule"
            if group.is_broken:
                _log.warning("a version is out; the others take its share", peer=pool.service, version=version)
            self._decide(Decision("fallback", pool.service, "version_share", detail=version))
