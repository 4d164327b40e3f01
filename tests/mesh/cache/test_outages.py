"""What the cache does while Redis is away, hung, restarted empty, or only its connections are cut."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
import redis.asyncio

from app.dev.redis import Server
from app.mesh.cache import Cache
from tests.mesh import actors
from tests.mesh.actors import until
from tests.mesh.cache.stage import Source, outcomes, process_cache, started

TAGS = ("user:7",)


def kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()


async def lost(cache: Cache) -> None:
    await until(lambda: not cache.watched)


async def whole(cache: Cache) -> None:
    """Redis is back, and invalidations are heard."""
    await until(lambda: cache.watched and cache.describe()["redis"] == "up")


async def test_without_redis_from_the_start_there_is_the_process_alone(namespace: str) -> None:
    nowhere = (await actors.refused_url()).replace("http", "redis")
    source = Source("x")
    async with process_cache(nowhere, namespace) as cache:
        assert await asyncio.gather(*(cache.get_or_load("a", source) for _ in range(100))) == ["x"] * 100
        assert await cache.get_or_load("a", source) == "x"
        assert source.loads == 1
        assert cache.describe()["redis"] == "away"


async def test_losing_the_connection_for_invalidations_empties_the_process_of_what_has_tags(
    redis_url: str, namespace: str
) -> None:
    async with (
        actors.redis_line(redis_url) as line,
        process_cache(line.url, namespace, unwatched_seconds=0.05) as cache,
        process_cache(redis_url, namespace) as other,
    ):
        tagged, plain = Source("old"), Source("plain")
        await cache.get_or_load("tagged", tagged, tags=TAGS)
        await cache.get_or_load("plain", plain)
        await line.cut()
        await lost(cache)
        assert cache.describe()["local"]["entries"] == 1
        await other.invalidate(*TAGS)
        tagged.value = "new"
        for _ in range(2):
            assert await cache.get_or_load("tagged", tagged, tags=TAGS) == "new"
        assert tagged.loads == 3  # it is not used here before invalidations are heard again
        end = time.monotonic() + 5
        while plain.loads == 1 and time.monotonic() < end:  # what has no tag lives on for a moment
            await cache.get_or_load("plain", plain)
            await asyncio.sleep(0.01)
        assert plain.loads == 2
        await line.mend()
        await whole(cache)
        assert cache.describe()["local"]["entries"] == 0
        assert await cache.get_or_load("tagged", tagged, tags=TAGS) == "new"
        assert await cache.get_or_load("tagged", tagged, tags=TAGS) == "new"
        assert outcomes(cache, "tagged")["hit_local"] == 1


async def test_a_load_that_began_before_invalidations_were_heard_again_is_not_kept(
    redis_url: str, namespace: str
) -> None:
    async with actors.redis_line(redis_url) as line, process_cache(line.url, namespace) as cache:
        source = Source("old")
        gate = source.close_gate()
        loading = await started(lambda: cache.get_or_load("a", source, tags=TAGS), source)
        await line.cut()
        await lost(cache)
        await line.mend()
        await whole(cache)
        gate.set()
        await loading
        assert cache.describe()["local"]["entries"] == 0


async def test_an_invalidation_that_redis_did_not_get_is_sent_when_it_is_back_and_believed_here_at_once(
    redis_url: str, namespace: str
) -> None:
    async with (
        actors.redis_line(redis_url) as line,
        process_cache(line.url, namespace) as cache,
        process_cache(redis_url, namespace) as other,
    ):
        source = Source("old")
        for asked in (cache, other):
            await asked.get_or_load("a", source, tags=TAGS)
        await line.cut()
        await lost(cache)
        source.value = "new"
        assert not await cache.invalidate(*TAGS)
        assert cache.describe()["invalidations_unsent"] == 1
        assert await cache.get_or_load("a", source, tags=TAGS) == "new"
        await line.mend()
        await until(lambda: cache.describe()["invalidations_unsent"] == 0)
        await until(lambda: other.describe()["local"]["entries"] == 0)
        assert await other.get_or_load("a", source, tags=TAGS) == "new"
        await whole(cache)
        assert await cache.get_or_load("a", source, tags=TAGS) == "new"


async def test_a_value_that_redis_did_not_get_is_not_overwritten_by_what_it_has(redis_url: str, namespace: str) -> None:
    async with (
        actors.redis_line(redis_url) as line,
        process_cache(line.url, namespace) as cache,
        process_cache(redis_url, namespace) as other,
    ):
        assert await cache.set("a", "old")
        assert await other.get("a") == "old"
        await line.cut()
        await lost(cache)
        assert not await cache.set("a", "new")
        assert await cache.get("a") == "new"
        await line.mend()
        await until(lambda: other.describe()["local"]["entries"] == 0)
        assert await other.get("a") is None
        await whole(cache)
        assert await cache.get("a") is None


async def test_a_hung_redis_costs_one_timeout_and_not_one_for_each_request(
    private_redis: Server, namespace: str
) -> None:
    async with process_cache(private_redis.url, namespace, redis_timeout_seconds=0.5) as cache:
        source = Source("x")
        await cache.get_or_load("warm", source)
        assert private_redis.pid is not None
        os.kill(private_redis.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert await cache.get_or_load("a", source) == "x"
            first = time.monotonic() - began
            began = time.monotonic()
            for number in range(50):
                assert await cache.get_or_load(f"b:{number}", source) == "x"
            # As many timeouts would be five times this, and a busy machine takes its time for fifty loads, too.
            assert time.monotonic() - began < 10 * first
        finally:
            os.kill(private_redis.pid, signal.SIGCONT)
        await until(lambda: cache.describe()["redis"] == "up")


async def test_a_redis_that_hangs_for_long_is_not_believed_to_have_nothing_to_say(
    private_redis: Server, namespace: str
) -> None:
    async with process_cache(
        private_redis.url, namespace, redis_timeout_seconds=0.2, watch_seconds=60.0, unwatched_seconds=60.0
    ) as cache:
        source = Source("x")
        await cache.get_or_load("a", source, tags=TAGS)
        assert private_redis.pid is not None
        os.kill(private_redis.pid, signal.SIGSTOP)
        try:
            await cache.get_or_load("b", source)
            await lost(cache)
            assert await cache.get_or_load("a", source, tags=TAGS) == "x"
            assert source.loads == 3
        finally:
            os.kill(private_redis.pid, signal.SIGCONT)
        await whole(cache)


async def test_redis_killed_and_started_empty_under_use(private_redis: Server, namespace: str) -> None:
    async with (
        process_cache(private_redis.url, namespace) as cache,
        process_cache(private_redis.url, namespace) as other,
    ):
        source, stop = Source(0), asyncio.Event()

        async def use(asked: Cache) -> int:
            served = 0
            while not stop.is_set():
                value = await asked.get_or_load("a", source, tags=TAGS)
                assert 0 <= value <= source.value
                served += 1
                await asyncio.sleep(0.001)
            return served

        users = [asyncio.create_task(use(asked)) for asked in (cache, other) for _ in range(5)]
        await until(lambda: "hit_local" in outcomes(other, "a"))
        await asyncio.to_thread(kill, private_redis)
        await lost(cache)
        await lost(other)
        source.value = 1
        assert not await cache.invalidate(*TAGS)
        assert await cache.get_or_load("a", source, tags=TAGS) == 1
        assert await asyncio.to_thread(private_redis.start)
        await whole(cache)
        await whole(other)
        await until(lambda: cache.describe()["invalidations_unsent"] == 0)
        stop.set()
        assert all(await asyncio.gather(*users))
        source.value = 2
        assert await cache.invalidate(*TAGS)
        assert await cache.get_or_load("a", source, tags=TAGS) == 2


@pytest.mark.parametrize("refusal", ["NOPERM", "OOM"])
async def test_a_redis_that_refuses_is_done_without(private_redis: Server, namespace: str, refusal: str) -> None:
    async with (
        redis.asyncio.Redis.from_url(private_redis.url) as client,
        process_cache(private_redis.url, namespace) as cache,
    ):
        source = Source("x")
        await cache.get_or_load("a", source)
        if refusal == "OOM":
            await client.config_set("maxmemory", "1")
        else:
            await client.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")  # type: ignore[no-untyped-call]
        for _ in range(2):
            assert await cache.get_or_load("b", source, tags=TAGS) == "x"
        assert outcomes(cache, "b") == {"miss": 1, "hit_local": 1}
