"""What somebody, or something, has removed is put back: nothing is lost, and nothing takes effect twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from app.data import Database
from app.dev.redis import Server
from app.mesh.keys import Keys
from tests.events.shop import NAME, Shop, each, until

CUSTOMERS = [f"c{n}" for n in range(8)]
PARTITIONS = 4


@pytest.fixture
def own(database: Database, private_redis: Server, keys: Keys) -> Shop:
    """The toy with a Redis of its own, which may be flushed."""
    return Shop(database, private_redis.url, keys)


@pytest.fixture
def console(private_redis: Server) -> Iterator[Any]:
    with closing(redis.Redis.from_url(private_redis.url, decode_responses=True)) as client:
        yield client


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestOfStreams:
    async def test_a_redis_that_is_empty_again_gets_everything_back_and_nothing_happens_twice(
        self, own: Shop, console: Any
    ) -> None:
        async with own.process(), own.process():
            await own.buy(*each(CUSTOMERS, 5))
            await own.until_sold(40)
            before = _streams(console, own.keys)
            console.flushall()
            await own.buy(*each(CUSTOMERS, 5))
            await own.until_sold(80)
            await until(lambda: _has(console, own.keys, 80))
        after = _streams(console, own.keys)
        assert len(before) == 40
        assert set(before) <= set(after)
        for customer in CUSTOMERS:
            assert await own.sold(customer) == list(range(1, 11))
        assert own.witness.notices["rebuilt"] > 0

    async def test_what_was_only_in_redis_is_not_lost_with_it(self, own: Shop, console: Any) -> None:
        # Relayed, and nobody has handled it yet.
        async with own.process(listening=False):
            await own.buy(*CUSTOMERS)
            await until(lambda: _has(console, own.keys, 8))
            console.flushall()
        async with own.process():
            await own.until_sold(8)
        assert await own.sold() == [1] * 8

    async def test_a_stream_that_is_deleted_comes_back_with_the_same_ids(self, own: Shop, console: Any) -> None:
        async with own.process():
            await own.buy(*each(CUSTOMERS, 3))
            await own.until_sold(24)
            before = _streams(console, own.keys)
            for partition in range(PARTITIONS):
                console.delete(own.keys.events(NAME, partition))
            await until(lambda: _has(console, own.keys, 24))
            await own.buy(*CUSTOMERS)
            await own.until_sold(32)
        assert set(before) <= set(_streams(console, own.keys))
        assert sorted(await own.sold("c3")) == [1, 2, 3, 4]

    async def test_a_group_that_is_removed_misses_nothing(self, own: Shop, console: Any) -> None:
        async with own.process():
            await own.buy(*CUSTOMERS)
            await own.until_sold(8)
            for partition in range(PARTITIONS):
                console.xgroup_destroy(own.keys.events(NAME, partition), NAME)
            await own.buy(*CUSTOMERS)
            await own.until_sold(16)
        assert await own.sold("c1") == [1, 2]
        assert own.witness.outcomes["done"] == 16

    async def test_a_consumer_that_is_removed_goes_on(self, own: Shop, console: Any) -> None:
        async with own.process():
            await own.buy(*CUSTOMERS)
            await own.until_sold(8)
            for partition in range(PARTITIONS):
                stream = own.keys.events(NAME, partition)
                for consumer in console.xinfo_consumers(stream, NAME):
                    console.xgroup_delconsumer(stream, NAME, consumer["name"])
            await own.buy(*CUSTOMERS)
            await own.until_sold(16)
        assert await own.sold("c1") == [1, 2]


def _streams(console: Any, keys: Keys) -> list[tuple[str, str]]:
    """Every entry of every partition: its id and what it says."""
    return [
        (entry, fields["event"])
        for partition in range(PARTITIONS)
        for entry, fields in console.xrange(keys.events(NAME, partition))
    ]


async def _has(console: Any, keys: Keys, count: int) -> bool:
    return len(_streams(console, keys)) >= count
