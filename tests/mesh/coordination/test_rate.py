from __future__ import annotations

import asyncio
import math

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Misconfigured, TooManyRequests
from app.mesh.coordination import Coordination, Line, Rate, open_line
from app.mesh.coordination.rate import Limiter, LocalBuckets
from app.mesh.keys import Keys
from tests.mesh import actors
from tests.mesh.actors import Witness, until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    tokens=st.integers(1, 50),
    seconds=st.floats(0.1, 100),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3)), max_size=60),
)
def test_no_span_of_time_lets_through_more_than_a_bucket_and_the_rate(
    tokens: int, seconds: float, steps: list[tuple[float, int]]
) -> None:
    clock, rate = Clock(), Rate(tokens, seconds)
    buckets = LocalBuckets(clock=clock)
    began, taken = clock.now, 0
    for pause, cost in steps:
        clock.now += pause
        verdict = buckets.take("c", rate, min(cost, rate.size))
        taken += min(cost, rate.size) if verdict.allowed else 0
        assert taken <= rate.size + (clock.now - began) / rate.seconds_per_token + 1e-3
        assert 0 <= verdict.remaining <= rate.size
        if not verdict.allowed:
            # It is exact: that much later the same is allowed.
            assert verdict.retry_after > 0
            clock.now += verdict.retry_after
            assert buckets.take("c", rate, min(cost, rate.size)).allowed
            taken += min(cost, rate.size)


def test_local_buckets_are_bounded() -> None:
    buckets = LocalBuckets(clock=Clock(), most=10)
    for number in range(100):
        buckets.take(str(number), Rate(1))
    assert len(buckets) == 10


@pytest.mark.parametrize(
    ("text", "rate"), [("100/minute", Rate(100, 60)), ("5/second", Rate(5)), ("1/day", Rate(1, 86400))]
)
def test_rates_are_read_as_they_are_spoken(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize("text", ["", "100", "x/minute", "100/fortnight", "0/second", "-1/second", "0.5/second"])
def test_a_rate_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured):
        Rate.parse(text)


async def test_processes_share_one_bucket_for_each_caller(
    redis_url: str, coordination: Coordination, store: redis.Redis, keys: Keys, witness: Witness
) -> None:
    rate = Rate(10, 3600)
    async with open_line(redis_url, timeout_seconds=2.0) as line:
        limiters = [coordination.limiter("api", rate), Coordination(line, keys).limiter("api", rate)]
        verdicts = [await limiters[number % 2].take("alice") for number in range(12)]
        assert [verdict.allowed for verdict in verdicts] == [True] * 10 + [False] * 2
        assert [verdict.remaining for verdict in verdicts] == [*range(9, -1, -1), 0, 0]
        assert verdicts[-1].source == "redis"
        assert 0 < verdicts[-1].retry_after <= 360
        assert 3500 < verdicts[9].reset <= 3600
        assert (await limiters[0].take("bob", cost=10)).allowed
        with pytest.raises(TooManyRequests) as caught:
            await limiters[1].require("bob")
        assert caught.value.retry_after
        with pytest.raises(ValueError, match="bucket of 10"):
            await limiters[0].take("bob", cost=11)
    [alice] = [key for key in store.scan_iter("*rate:api:*") if store.pttl(key) > 3_500_000][:1]
    assert "alice" not in alice
    assert {decision.outcome for decision in witness.decisions} == {"allowed_redis", "limited_redis"}


async def test_a_bucket_fills_again(coordination: Coordination) -> None:
    limiter = coordination.limiter("api", Rate(2, 4))
    assert [(await limiter.take("a")).allowed for _ in range(2)] == [True, True]
    assert not (await limiter.take("a")).allowed
    async with asyncio.timeout(10):
        while not (await limiter.take("a")).allowed:
            await asyncio.sleep(0.01)


async def test_a_clock_that_jumped_back_costs_at_most_one_bucket(
    coordination: Coordination, store: redis.Redis, keys: Keys
) -> None:
    limiter = coordination.limiter("api", Rate(10, 100))
    await limiter.take("a")
    [key] = store.scan_iter("*rate:api:*")
    store.set(key, str(10**17), px=60_000)
    verdict = await limiter.take("a")
    assert not verdict.allowed
    assert verdict.retry_after <= 10


async def test_while_redis_is_away_each_process_has_its_share(redis_url: str, namespace: str) -> None:
    clock, witness = Clock(), Witness()
    async with actors.redis_line(redis_url) as wire, open_line(wire.url, timeout_seconds=2.0) as line:
        limiter = Limiter(
            "api", Rate(10, 10), line=line, keys=Keys(namespace), observer=witness, instances=lambda: 5, clock=clock
        )
        assert (await limiter.take("a")).source == "redis"
        await wire.cut()
        verdicts = [await limiter.take("a") for _ in range(4)]
        assert [verdict.allowed for verdict in verdicts] == [True, True, False, False]
        assert {verdict.source for verdict in verdicts} == {"local"}
        assert math.isclose(verdicts[-1].retry_after, 5.0)
        clock.now += verdicts[-1].retry_after
        assert (await limiter.take("a")).allowed
        await wire.mend()
        await until(lambda: line.up)
        assert (await limiter.take("a")).source == "redis"
    assert {decision.outcome for decision in witness.decisions} == {"allowed_redis", "allowed_local", "limited_local"}


async def test_the_same_limit_is_the_same_one(line: Line, keys: Keys) -> None:
    coordination = Coordination(line, keys)
    assert coordination.limiter("api", "5/second") is coordination.limiter("api", Rate(5))
    assert coordination.describe() == {"redis": "up", "limits": {"api": "5 in 1 s, 5 at once"}}
