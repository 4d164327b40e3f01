"""Chooses peers; one per process, for all services.

    table, rules ──► update ──► Pool per (service, sandbox)
    request ───────► pick: version by its share ─► zone, spilling over ─► strategy ─► Pick
    Pick ends ─────► Warden: cost, ejection, breaker ──► who is in, who is out

Who is out is looked past only when nobody else is left, in this order: in and not tried yet; due for a probe; left
alone though nothing is wrong with it; out, which is the panic; and last who was tried already.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence

from app.mesh.balancing import candidate, strategies
from app.mesh.balancing.candidate import Candidate
from app.mesh.balancing.endpoint import Endpoint
from app.mesh.balancing.pick import Outcome, Pick
from app.mesh.balancing.policy import Policy
from app.mesh.balancing.pool import Cell, Group, Pool, build
from app.mesh.balancing.strategies import Strategy
from app.mesh.balancing.warden import Decide, Warden
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule
from app.mesh.registry.view import Table

__all__ = ["Balancer", "Candidate", "Outcome", "Pick", "Policy"]

_Key = tuple[str, str]
_NO_GENERATION = -1


class Balancer:
    """Args:
    zone: this process's own.
    clock: monotonic seconds.
    decide: told every ejection, breaker's change and fallback (`Observer.decision`).
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        zone: str = "",
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        decide: Decide = lambda decision: None,
    ) -> None:
        self.policy = policy or Policy()
        self.clock, self._zone = clock, zone
        rng = rng or random.Random()
        self._random = rng.random
        self._warden = Warden(self.policy, clock=clock, rng=rng, decide=decide, pool_of=self._pool_of)
        self._endpoints: dict[_Key, Endpoint] = {}
        self._by_id: dict[str, Endpoint] = {}
        self._gone: set[_Key] = set()
        self._pools: dict[tuple[str, str | None], Pool] = {}
        self._strategies: dict[str, Strategy] = {}
        self._seen: dict[str, tuple[tuple[Instance, ...], Rule | None]] = {}
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<Balancer {len(self._endpoints)} peers, {self.in_flight} in flight>"

    # ------------------------------------------------------------------------------------- the table

    def update(self, table: Table) -> None:
        """Take over a new table. Only the services whose instances or rule have changed are sorted anew."""
        now = self.clock()
        for service, instances in table.instances.items():
            rule = table.rules.get(service)
            seen = self._seen.get(service)
            if seen is None or seen[0] is not instances or seen[1] != rule:
                self._rebuild(service, instances, rule, now)
        for service in self._seen.keys() - table.instances.keys():
            self._rebuild(service, (), None, now)
            del self._seen[service]
        self._forget(now)

    def _rebuild(self, service: str, instances: tuple[Instance, ...], rule: Rule | None, now: float) -> None:
        # Who is there at first has nobody to be slower than.
        before, is_first = self._seen.get(service, ((), None))[0], service not in self._seen
        self._seen[service] = (instances, rule)
        self._gone.update((service, instance.id) for instance in before)
        weights = dict(rule.weights) if rule is not None else {}
        by_sandbox: dict[str | None, list[Endpoint]] = {}
        for instance in instances:
            endpoint = self._endpoint(instance, now)
            endpoint.weight = weights.get(instance.id, instance.weight)
            if instance.state == "ready" and endpoint.weight > 0:
                by_sandbox.setdefault(instance.sandbox, []).append(endpoint)
                if not is_first and not self._stands(endpoint):
                    endpoint.warm_from = now
        for key in [key for key in self._pools if key[0] == service and key[1] not in by_sandbox]:
            del self._pools[key]
        for sandbox, endpoints in by_sandbox.items():
            self._pools[service, sandbox] = self._pool(service, endpoints, rule if sandbox is None else None, now)

    def _pool(self, service: str, endpoints: Sequence[Endpoint], rule: Rule | None, now: float) -> Pool:
        pool = build(service, endpoints, rule, self._zone, self._strategy(service))
        window = self.policy.slow_start_seconds
        pool.warming = {endpoint for endpoint in pool.home if endpoint.is_warming(now, window)}
        self._warden.warm(pool, now)
        for endpoint, cell in pool.home.items():
            self._warden.seat(pool, cell, endpoint, now)
        return pool

    def _endpoint(self, instance: Instance, now: float) -> Endpoint:
        """A restarted process, which has a new generation, is a new one."""
        key = (instance.service, instance.id)
        endpoint = self._endpoints.get(key)
        if endpoint is None or endpoint.instance.generation != instance.generation:
            endpoint = self._endpoints[key] = self._by_id[instance.id] = self._warden.endpoint(instance, now)
        endpoint.instance = instance
        self._gone.discard(key)
        return endpoint

    def _strategy(self, service: str) -> Strategy:
        strategy = self._strategies.get(service)
        if strategy is None:
            name = self.policy.strategies.get(service, self.policy.strategy)
            strategy = self._strategies[service] = strategies.strategy_named(name, self.policy, self._random)
        return strategy

    def _forget(self, now: float) -> None:
        """Who has gone, unless something is in flight there, or it is out: it may come back, and is no better then."""
        for key in tuple(self._gone):
            endpoint = self._endpoints[key]
            if not endpoint.in_flight and (endpoint.returns_at(now) or 0.0) <= now:
                self._gone.discard(key)
                del self._endpoints[key]
                self._by_id.pop(key[1], None)

    def _pool_of(self, endpoint: Endpoint) -> Pool | None:
        return self._pools.get((endpoint.instance.service, endpoint.instance.sandbox))

    def _stands(self, endpoint: Endpoint) -> bool:
        pool = self._pool_of(endpoint)
        return pool is not None and endpoint in pool.home

    # ------------------------------------------------------------------------------------- picking

    def pick(
        self, service: str, *, tried: Collection[str] = (), sandbox: str | None = None, key: str | None = None
    ) -> Pick | None:
        """A peer of `service`, for one request; None only if nobody is ready.

        Args:
            tried: ids that are asked again only if there is nobody else.
            sandbox: one with this sandbox, if there is any ready; otherwise, and without it, an ordinary one.
            key: the same key goes to the same peer, as far as it is in.
        """
        pool = self._pools.get((service, sandbox)) or self._pools.get((service, None))
        if pool is None:
            return None
        now = self.clock()
        if now >= pool.tend_at:
            self._warden.tend(pool, now)
        cell = pool.only
        if cell is not None and cell.live and not tried and key is None and not cell.due:
            return self._to(pool, pool.strategy.choose(cell.live, now), now)
        return self._pick_carefully(pool, tried, key, now)

    def _pick_carefully(self, pool: Pool, tried: Collection[str], key: str | None, now: float) -> Pick:
        groups = self._groups(pool, key)
        cells = [cell for group in groups for cell in group.ordered(self._draw("zone", key), self.policy.zone_spill)]
        for cell in cells:
            pick = self._from_cell(pool, cell, tried, key, now)
            if pick is not None:
                return pick
        return self._from_the_rest(pool, cells, tried, key, now)

    def _groups(self, pool: Pool, key: str | None) -> Sequence[Group]:
        """The version whose turn it is by the shares, then the others."""
        if len(pool.groups) == 1:
            return pool.groups
        group = pool.group(self._draw("version", key))
        if not group.is_live and pool.is_live:
            self._warden.replace(pool, group)
        return [group, *(other for other in pool.groups if other is not group)]

    def _draw(self, what: str, key: str | None) -> float:
        """What a sticky key is due stays the same as well."""
        return self._random() if key is None else strategies.unit(what, key)

    def _from_cell(self, pool: Pool, cell: Cell, tried: Collection[str], key: str | None, now: float) -> Pick | None:
        """One that is in, or due to be probed, and not tried yet."""
        if key is not None:
            return self._by_key(pool, cell, tried, key, now)
        for endpoint in tuple(cell.due):
            if endpoint.instance.id not in tried and (pick := self._probe(pool, cell, endpoint, now)):
                return pick
        if not cell.live:
            return None
        endpoint = pool.strategy.choose(cell.live, now)
        if endpoint.instance.id in tried:
            fresh = [endpoint for endpoint in cell.live if endpoint.instance.id not in tried]
            if not fresh:
                return None
            endpoint = pool.strategy.choose(fresh, now)
        return self._to(pool, endpoint, now)

    def _by_key(self, pool: Pool, cell: Cell, tried: Collection[str], key: str, now: float) -> Pick | None:
        ranking: Sequence[Endpoint] = cell.ranking(key)
        if all(endpoint.at < 0 or endpoint.instance.id in tried for endpoint in ranking):
            ranking = strategies.ranked(cell.peers, key, len(cell.peers))
        for endpoint in ranking:
            if endpoint.instance.id in tried:
                continue
            if endpoint.at >= 0:
                return self._to(pool, endpoint, now)
            if endpoint in cell.due and (pick := self._probe(pool, cell, endpoint, now)):
                return pick
        return None

    def _from_the_rest(
        self, pool: Pool, cells: Sequence[Cell], tried: Collection[str], key: str | None, now: float
    ) -> Pick:
        everybody = [endpoint for cell in cells for endpoint in cell.peers]
        fresh = [endpoint for endpoint in everybody if endpoint.instance.id not in tried]
        for endpoints in (
            [endpoint for endpoint in fresh if not endpoint.is_broken],
            fresh,
            [endpoint for endpoint in everybody if not endpoint.is_broken],
            everybody,
        ):
            if endpoints:
                break
        if key is not None:
            return self._to(pool, strategies.ranked(endpoints, key, 1)[0], now)
        return self._to(pool, pool.strategy.choose(endpoints, now), now)

    def _probe(self, pool: Pool, cell: Cell, endpoint: Endpoint, now: float) -> Pick | None:
        generation = self._warden.probe(pool, cell, endpoint, now)
        return self._start(endpoint, now, generation, is_probe=True) if generation is not None else None

    def _to(self, pool: Pool, endpoint: Endpoint, now: float) -> Pick:
        if endpoint.at >= 0 or not endpoint.is_broken:
            return self._start(endpoint, now, endpoint.generation)
        self._warden.panic(pool)
        # A success of the panic ends an ejection; the breaker has its own time and its own probes.
        return self._start(endpoint, now, _NO_GENERATION, in_panic=True)

    def _start(
        self, endpoint: Endpoint, now: float, generation: int, *, is_probe: bool = False, in_panic: bool = False
    ) -> Pick:
        if not endpoint.waiting:
            endpoint.heard_at = now
        endpoint.waiting += 1
        endpoint.in_flight += 1
        endpoint.picked_at = now
        self.in_flight += 1
        return Pick(self, endpoint, now, generation, is_probe=is_probe, in_panic=in_panic)

    # ------------------------------------------------------------------------------------- how picks end

    def settled(self, pick: Pick, outcome: Outcome | None, /) -> float:
        """For `Pick`: record what became of it."""
        endpoint, now = pick.endpoint, self.clock()
        seconds = now - pick.started_at
        endpoint.waiting -= 1
        if outcome is Outcome.OK:
            self._warden.answered(endpoint, pick.epoch, pick.generation, seconds, now)
        elif outcome is Outcome.FAILED or outcome is Outcome.SILENT:
            silent = outcome is Outcome.SILENT
            self._warden.failed(endpoint, pick.epoch, pick.generation, seconds, now, silent=silent)
        elif outcome is Outcome.REJECTED:
            self._warden.rejected(endpoint, pick.epoch, pick.generation, now, probe=pick.is_probe)
        else:
            self._warden.given_up(endpoint, pick.epoch, pick.generation, seconds, now, probe=pick.is_probe)
        return seconds

    def released(self, pick: Pick, /) -> None:
        """For `Pick`: it is no longer in flight."""
        pick.endpoint.in_flight -= 1
        self.in_flight -= 1

    # ------------------------------------------------------------------------------------- what others know and ask

    def avoid(self, instance_id: str, seconds: float, reason: str) -> None:
        """Ask this peer only after the others, for so long: it has said that it is leaving, or is not who it was."""
        endpoint = self._by_id.get(instance_id)
        if endpoint is not None:
            self._warden.avoid(endpoint, self.clock(), seconds, reason)

    def last_success(self, instance_id: str) -> float | None:
        """When (monotonic seconds) it last did what was asked; None: never, as far as this process knows."""
        endpoint = self._by_id.get(instance_id)
        return endpoint.succeeded_at if endpoint is not None else None

    def has_other(self, service: str, *, tried: Collection[str], sandbox: str | None = None) -> bool:
        """Whether anybody is in whose id is not in `tried`: that asking again is more than a hope."""
        pool = self._pools.get((service, sandbox)) or self._pools.get((service, None))
        if pool is None:
            return False
        cells = (pool.only,) if pool.only is not None else pool.cells()
        return any(endpoint.instance.id not in tried for cell in cells for endpoint in cell.live)

    def explain(self, service: str, *, sandbox: str | None = None) -> tuple[Candidate, ...]:
        """Between whom a request is decided now, and how they do; empty if nobody is ready."""
        pool = self._pools.get((service, sandbox)) or self._pools.get((service, None))
        if pool is None:
            return ()
        now = self.clock()
        self._warden.tend(pool, now)
        return candidate.candidates(pool, self.policy, now)
