"""How many may wait at once: the decision alone, and in front of a queue that is simulated event by event."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.web.entrance.limiter import Limiter, Policy

POLICY = Policy(maximum=200, patience_seconds=0.2, crowd=20)
samples = st.lists(
    st.tuples(
        st.floats(0, 1000, allow_nan=False),  # seconds
        st.integers(1, 5000),  # in flight
        st.floats(0, 60),  # since the last one
        st.booleans(),  # cut off
    ),
    max_size=300,
)


@given(samples, st.integers(4, 3000))
def test_the_limit_stays_in_its_bounds_whatever_it_is_told(
    told: list[tuple[float, int, float, bool]], top: int
) -> None:
    limiter, now = Limiter(Policy(maximum=top, patience_seconds=0.1, crowd=10)), 0.0
    for seconds, in_flight, later, cut_off in told:
        now += later
        limiter.sample(seconds, in_flight, now, cut_off=cut_off)
        assert 4 <= limiter.limit <= top
        limiter.lower(now)
        assert 4 <= limiter.limit <= top


@given(st.floats(0.0001, 30), st.integers(1, 400))
@example(seconds=0.21, in_flight=100)
def test_a_latency_that_does_not_change_lowers_nothing(seconds: float, in_flight: int) -> None:
    limiter = Limiter(POLICY)
    for number in range(2000):
        limiter.sample(seconds, min(in_flight, limiter.limit), number * 0.01)
    assert limiter.limit == POLICY.maximum


@given(st.floats(0.05, 5), st.integers(20, 200))
def test_ten_times_the_latency_near_the_limit_lowers_it(seconds: float, in_flight: int) -> None:
    limiter = Limiter(POLICY)
    for number in range(1000):
        limiter.sample(seconds, 1, number * 0.01)
    for number in range(100):
        limiter.sample(10 * seconds, in_flight, 10 + number * 0.01)
    assert limiter.limit < POLICY.maximum / 1.5


def test_quick_answers_are_no_sign_of_a_queue_however_much_slower_they_became() -> None:
    limiter = Limiter(POLICY)
    for seconds in (0.001, 0.19):
        for number in range(500):
            limiter.sample(seconds, 200, number * 0.01)
    assert limiter.limit == POLICY.maximum


def test_where_nobody_comes_near_the_limit_it_is_trusted_again() -> None:
    limiter = Limiter(POLICY)
    fill(limiter, seconds=0.01, in_flight=1, since=0)
    fill(limiter, seconds=2.0, in_flight=100, since=10)
    low = limiter.limit
    fill(limiter, seconds=0.01, in_flight=1, since=20)
    assert limiter.limit == low < POLICY.maximum
    fill(limiter, seconds=0.01, in_flight=1, since=20 + POLICY.trust_seconds)
    assert limiter.limit == POLICY.maximum


def test_while_it_is_in_doubt_the_limit_falls_no_further_than_it_takes_to_find_out() -> None:
    limiter = Limiter(Policy(maximum=2000, patience_seconds=0.2))
    fill(limiter, seconds=0.1, in_flight=1, since=0)
    for since in range(10, 100, 2):
        fill(limiter, seconds=5.0, in_flight=1000, since=since)
    in_doubt = limiter.limit
    assert 300 < in_doubt < 500
    fill(limiter, seconds=2.0, in_flight=400, since=100)
    assert limiter.limit < 300, "fewer took less time: it is a queue"


def test_what_was_cut_off_would_have_taken_longer_so_less_is_no_proof_that_there_is_no_queue() -> None:
    limits = []
    for cut_off in (False, True):
        limiter = Limiter(POLICY)
        fill(limiter, seconds=0.1, in_flight=1, since=0)
        for number in range(200):
            limiter.sample(10.0, 150, 10 + number * 0.01, cut_off=cut_off)
        fill(limiter, seconds=10.0, in_flight=60, since=20)
        limits.append(limiter.limit)
    assert limits[0] == POLICY.maximum
    assert limits[1] < 75


def test_a_fixed_limit_stays_where_it_is() -> None:
    limiter = Limiter(Policy(maximum=100, adaptive=False))
    fill(limiter, seconds=0.01, in_flight=1, since=0)
    fill(limiter, seconds=50.0, in_flight=100, since=10)
    limiter.lower(20)
    assert limiter.limit == 100


def fill(limiter: Limiter, *, seconds: float, in_flight: int, since: float) -> None:
    for number in range(200):
        limiter.sample(seconds, in_flight, since + number * 0.01)


class Shop:
    """`slots` requests are served at once, the others queue; who has waited for ten seconds goes away.

    What happened is counted by period of five seconds.
    """

    PERIOD, PATIENCE = 5, 10.0

    def __init__(self, limiter: Limiter, *, slots: int, service_seconds: Callable[[float], float]) -> None:
        self.limiter, self.slots, self.service_seconds = limiter, slots, service_seconds
        self.rng = random.Random(7)
        self.served: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.waited: dict[int, float] = {}
        self._events: list[tuple[float, int, str, list[float]]] = []
        self._numbers = itertools.count()
        self._queue: deque[list[float]] = deque()
        self._busy = self._in_flight = 0

    def run(self, until: float, per_second: Callable[[float], float]) -> None:
        self._at(0.0, "comes", [])
        while self._events:
            now, _, what, visit = heapq.heappop(self._events)
            if now > until:
                return
            if what == "comes":
                self._at(now + self.rng.expovariate(per_second(now)), "comes", [])
                self._come(now)
            elif what == "served":
                self._busy -= 1
                self._leave(now, visit)
            elif visit in self._queue:
                self._queue.remove(visit)
                self._in_flight -= 1
                self.limiter.sample(now - visit[0], int(visit[1]), now, cut_off=True)
            self._serve(now)

    def _come(self, now: float) -> None:
        if self._in_flight >= self.limiter.limit:
            self.refused[int(now) // self.PERIOD] += 1
            return
        self._in_flight += 1
        visit = [now, float(self._in_flight)]
        self._queue.append(visit)
        self._at(now + self.PATIENCE, "leaves", visit)

    def _serve(self, now: float) -> None:
        while self._queue and self._busy < self.slots:
            self._busy += 1
            self._at(now + self.service_seconds(now) * self.rng.uniform(0.8, 1.2), "served", self._queue.popleft())

    def _leave(self, now: float, visit: list[float]) -> None:
        self._in_flight -= 1
        period = int(now) // self.PERIOD
        self.served[period] += 1
        self.waited[period] = max(self.waited.get(period, 0.0), now - visit[0])
        self.limiter.sample(now - visit[0], int(visit[1]), now)

    def _at(self, when: float, what: str, visit: list[float]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what, visit))


@pytest.mark.parametrize(("slots", "seconds"), [(10, 0.05), (10, 0.2), (32, 0.1)])
def test_under_lasting_overload_all_slots_are_busy_and_the_queue_stays_short(slots: int, seconds: float) -> None:
    capacity = slots / seconds
    shop = Shop(Limiter(Policy()), slots=slots, service_seconds=lambda now: seconds)
    shop.run(60, lambda now: capacity * (3.0 if 10 <= now < 50 else 0.3))
    for period in range(2, 10):
        assert shop.served[period] >= 0.95 * capacity * Shop.PERIOD, "nothing is refused that could have been served"
    for period in range(6, 10):
        allowed = max(Policy().patience_seconds, Policy().tolerance * seconds)
        assert shop.waited[period] < 2 * allowed, "as Netflix has it, this grows to ten seconds"
        assert shop.refused[period] > 1.5 * capacity * Shop.PERIOD
    assert shop.refused[11] == 0


def test_a_slow_dependency_is_told_from_a_queue() -> None:
    """A thousand may wait for it at once: refusing them makes nothing quicker, and after one attempt nobody does."""
    shop = Shop(Limiter(Policy()), slots=10**9, service_seconds=lambda now: 0.1 if now < 10 else 5.0)
    shop.run(60, lambda now: 300)
    assert sum(shop.refused[period] for period in range(6, 12)) == 0
    assert shop.served[10] >= 0.95 * 300 * Shop.PERIOD


def test_a_thousand_at_once_leave_room_for_a_thousand_more() -> None:
    """Each waits for a tenth of a second, and computes for a third of a millisecond, one after the other."""
    limiter = Limiter(Policy())
    for burst in range(5):
        assert limiter.limit >= 1000
        for number in range(1, 1001):
            late = number * 0.000_3
            limiter.sample(0.1 + late, number, burst + late)


def test_slow_answers_among_quick_ones_refuse_nobody() -> None:
    rng = random.Random(3)
    shop = Shop(Limiter(Policy()), slots=10**9, service_seconds=lambda now: 5.0 if rng.random() < 0.1 else 0.02)
    shop.run(60, lambda now: 200)
    assert shop.refused.total() == 0
