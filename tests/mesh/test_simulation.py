"""The balancer among simulated peers, event by event in virtual time: against choosing at random and in turn.

Requests come at random moments whether or not earlier ones are done (open loop). A peer has a few workers and a queue.
Everything is seeded, so that a share is a fact and not an impression.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import pytest

from app.mesh.balancing.balancer import Balancer, Outcome, Policy
from app.mesh.balancing.endpoint import Endpoint
from app.mesh.registry.view import Table
from tests.mesh.actors import instance

USUAL_SECONDS = 0.010
PER_SECOND = 300.0
TIMEOUT_SECONDS = 10.0

OURS = Policy()
NAIVE = Policy(strategy="round_robin", ejection=None, breaker=None, slow_start_seconds=0)


class World:
    """Virtual time: what is due happens in order."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._number), act))

    def run(self) -> None:
        while self._due:
            self.now, _, act = heapq.heappop(self._due)
            act()


@dataclass
class Server:
    """A peer: how long it takes at a time, whether it fails, and when it stands still."""

    name: str
    seconds: Callable[[float], float] = lambda now: USUAL_SECONDS
    fails: bool = False
    workers: int = 8
    weight: float = 1.0
    joins_at: float = 0.0
    stops_at: float = float("inf")
    resumes_at: float = float("inf")
    busy: int = 0
    queue: deque[Callable[[], None]] = field(default_factory=deque)

    def serve(self, world: World, done: Callable[[bool], None]) -> None:
        def begin() -> None:
            self.busy += 1
            seconds = self.seconds(world.now) * world.rng.uniform(0.5, 1.5)
            ends = world.now + seconds
            if self.stops_at <= ends and world.now < self.resumes_at:
                seconds = self.resumes_at + seconds - world.now
            world.after(seconds, end)

        def end() -> None:
            self.busy -= 1
            done(self.fails)
            if self.queue:
                self.queue.popleft()()

        if self.busy < self.workers:
            begin()
        else:
            self.queue.append(begin)


class Served(NamedTuple):
    at: float
    by: str
    seconds: float
    ok: bool


@dataclass
class Run:
    """What became of all requests."""

    served: list[Served]
    balancer: Balancer

    def share(self, name: str, *, since: float = 0.0, until: float = float("inf")) -> float:
        during = [one for one in self.served if since <= one.at < until]
        return Counter(one.by for one in during)[name] / len(during)

    def percentile(self, percent: int, *, since: float = 0.0, until: float = float("inf")) -> float:
        ordered = sorted(one.seconds for one in self.served if since <= one.at < until)
        return ordered[percent * (len(ordered) - 1) // 100]

    def p99(self, *, since: float = 0.0, until: float = float("inf")) -> float:
        return self.percentile(99, since=since, until=until)

    @property
    def failed(self) -> float:
        return sum(not one.ok for one in self.served) / len(self.served)


class AtRandom:
    """The other side of the comparison."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, peers: Sequence[Endpoint], now: float) -> Endpoint:
        return self._rng.choice(peers)


def simulate(
    *servers: Server, policy: Policy = OURS, at_random: bool = False, seconds: float = 30.0, seed: int = 1
) -> Run:
    world = World(seed)
    rng = random.Random(seed + 1)
    balancer = Balancer(policy, clock=lambda: world.now, rng=rng)
    if at_random:
        balancer._strategies["users"] = AtRandom(rng)
    by_name = {server.name: server for server in servers}
    served: list[Served] = []

    def join() -> None:
        there = tuple(
            instance(id=server.name, weight=server.weight) for server in servers if server.joins_at <= world.now
        )
        balancer.update(Table(instances={"users": there}, ready={"users": there}))

    def request() -> None:
        pick = balancer.pick("users")
        assert pick is not None
        at, open_ = world.now, [True]

        def over(failed: bool) -> None:
            if open_:
                open_.clear()
                pick.settle(Outcome.FAILED if failed else Outcome.OK)
                pick.release()
                served.append(Served(at, pick.peer.id, world.now - at, not failed))

        by_name[pick.peer.id].serve(world, over)
        world.after(TIMEOUT_SECONDS, lambda: over(True))
        if world.now < seconds:
            world.after(world.rng.expovariate(PER_SECOND), request)

    for moment in sorted({server.joins_at for server in servers}):
        world.after(moment, join)
    world.after(0.0, request)
    world.run()
    assert balancer.in_flight == 0
    return Run(served, balancer)


def usual(many: int) -> list[Server]:
    return [Server(f"usual{n}") for n in range(many)]


def slow() -> Server:
    return Server("slow", lambda now: 10 * USUAL_SECONDS)


def failing() -> Server:
    return Server("failing", lambda now: USUAL_SECONDS / 10, fails=True)


def cold(joins_at: float) -> Server:
    """Eight times as slow as the others for its first five seconds."""
    return Server("cold", lambda now: USUAL_SECONDS * (8 if now < joins_at + 5.0 else 1), joins_at=joins_at)


def test_one_peer_that_is_ten_times_slower_gets_little_and_spoils_nothing() -> None:
    without = simulate(*usual(3))
    ours = simulate(*usual(3), slow())
    assert ours.share("slow") < 0.05
    assert ours.p99() < 1.5 * without.p99()
    for naive in (simulate(*usual(3), slow(), policy=NAIVE), simulate(*usual(3), slow(), policy=NAIVE, at_random=True)):
        assert naive.share("slow") == pytest.approx(0.25, abs=0.03)
        assert naive.p99() > 5 * ours.p99()


def test_one_peer_that_fails_at_once_does_not_attract_requests() -> None:
    ours = simulate(*usual(3), failing())
    assert ours.failed < 0.005
    for naive in (
        simulate(*usual(3), failing(), policy=NAIVE),
        simulate(*usual(3), failing(), policy=NAIVE, at_random=True),
        # What looks only at requests in flight takes the one that fails fastest for the best.
        simulate(*usual(3), failing(), policy=Policy(strategy="least", ejection=None, breaker=None)),
    ):
        assert naive.failed > 0.2


def test_ejection_makes_up_for_a_strategy_that_does_not_look() -> None:
    ours = simulate(*usual(3), failing(), policy=Policy(strategy="round_robin"))
    assert ours.failed < 0.01


def test_a_cold_peer_is_neither_flooded_nor_starved() -> None:
    ours = simulate(*usual(3), cold(10.0), seconds=60.0)
    naive = simulate(*usual(3), cold(10.0), policy=NAIVE)
    assert 0 < ours.share("cold", since=10.0, until=15.0) < 0.05
    assert ours.share("cold", since=50.0) > 0.15
    assert ours.p99(since=10.0, until=15.0) < 2 * ours.p99(until=10.0)
    assert naive.p99(since=10.0, until=15.0) > 4 * naive.p99(until=10.0)


def test_all_of_them_at_once() -> None:
    crew = [*usual(3), slow(), failing(), cold(10.0)]
    runs = {
        "ours": simulate(*crew),
        "in turn": simulate(*usual(3), slow(), failing(), cold(10.0), policy=NAIVE),
        "at random": simulate(*usual(3), slow(), failing(), cold(10.0), policy=NAIVE, at_random=True),
    }
    ours = runs.pop("ours")
    for naive in runs.values():
        assert ours.failed < naive.failed / 20
        # Of two draws among six, now and then both are of the slow ones: no matter for the 95th percentile.
        assert ours.percentile(95) < naive.percentile(95) / 3
    assert ours.share("slow") < 0.05
    assert ours.share("failing") < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_a_stopped_peer_costs_a_moment_and_is_taken_back_when_it_goes_on(seed: int) -> None:
    def stopped() -> Server:
        return Server("stopped", stops_at=10.0, resumes_at=30.0)

    ours = simulate(*usual(2), stopped(), seconds=45.0, seed=seed)
    before = ours.p99(until=10.0)
    assert ours.p99(since=12.0, until=30.0) < 1.5 * before
    # What hangs: what was under way, what comes before it shows, and a probe now and then.
    assert sum(one.seconds > 1.0 for one in ours.served) < 15
    assert ours.share("stopped", since=40.0) > 0.2
    naive = simulate(*usual(2), stopped(), policy=NAIVE, seconds=45.0, seed=seed)
    assert naive.p99(since=12.0, until=30.0) > 100 * before


def test_a_peer_with_twice_the_workers_and_twice_the_weight_does_twice_the_work() -> None:
    seconds = 2.5 * USUAL_SECONDS
    big = Server("big", lambda now: seconds, workers=8, weight=2.0)
    small = Server("small", lambda now: seconds, workers=4, weight=1.0)
    ours = simulate(big, small)
    assert ours.share("big") == pytest.approx(2 / 3, abs=0.07)
    assert ours.p99() < 3 * seconds
