"""Cache, locks and limits on a Redis Cluster, whose node fails over meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.errors import LeaseLost, Unavailable
from app.mesh.cache import Cache
from app.mesh.coordination import Coordination, open_line
from app.mesh.keys import Keys
from tests import redis_servers
from tests.mesh.actors import until
from tests.mesh.cache.stage import Source, process_cache

NAMESPACE = "clustered"
TAGS = ("user:7",)


async def test_everything_works_on_a_cluster_and_after_a_failover(tmp_path: Path) -> None:
    keys = Keys(NAMESPACE)
    with redis_servers.cluster(tmp_path, keys.cached("x")) as cluster:
        async with (
            process_cache(cluster.url, NAMESPACE) as cache,
            process_cache(cluster.url, NAMESPACE) as other,
            open_line(cluster.url, timeout_seconds=2.0) as line,
        ):
            coordination = Coordination(line, keys)
            source = Source("old")
            await round_trip(cache, other, source)
            async with coordination.lock("one") as held:
                first = held.token
            assert (await coordination.limiter("api", "5/hour").take("a")).source == "redis"

            await asyncio.to_thread(cluster.fail_over)
            for asked in (cache, other):  # whoever asks finds out; nobody is refused
                assert await asked.get_or_load("during", source)
            await until(lambda: all(c.watched and c.describe()["redis"] == "up" for c in (cache, other)))
            await round_trip(cache, other, source)
            await until(lambda: line.up)
            assert await next_token(coordination) > first


async def round_trip(cache: Cache, other: Cache, source: Source) -> None:
    """One loads, the other has it from Redis; one invalidates, and the other hears of it."""
    await cache.invalidate(*TAGS)
    loads = source.loads
    for asked in (cache, other, cache, other):
        assert await asked.get_or_load("user:7", source, tags=TAGS) == source.value
    assert source.loads == loads + 1
    source.value += "er"
    assert await other.invalidate(*TAGS)
    await until(lambda: cache._local.get("user:7") is None)
    assert await cache.get_or_load("user:7", source, tags=TAGS) == source.value


async def next_token(coordination: Coordination) -> int:
    while True:
        try:
            async with coordination.lock("one") as held:
                return held.token
        except (Unavailable, LeaseLost):
            await asyncio.sleep(0.05)
