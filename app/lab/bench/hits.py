"""Runs inside a child: hits and misses of the cache.

``python -m app.lab.bench.hits --core N --rounds N --calls N`` prints a JSON array of samples.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson

from app import redis_client
from app import settings as settings_room
from app.lab.bench import footing
from app.lab.bench.cache import CROWD, LOCAL, MISSES, PROCESSES, REMOTE
from app.lab.bench.serve import bind
from app.mesh.cache import Cache, open_cache
from app.mesh.coordination import open_line
from app.mesh.keys import Keys
from app.settings import Settings

_TTL_SECONDS = 600.0
_LOAD_SECONDS = 0.05
_REMOTE_KEYS = 500
_LINE_SECONDS = 5.0

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.lab.bench.hits")
    for name in ("core", "rounds", "calls"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    bind(options.core)
    footing.run(lambda: _measure(options.rounds, options.calls))


async def _measure(rounds: int, calls: int) -> None:
    settings = settings_room.load()
    samples: list[dict[str, object]] = []
    for number in range(1, rounds + 1):
        figures = {
            LOCAL.key: await _local(settings, calls),
            REMOTE.key: await _remote(settings, number),
            MISSES.key: await _misses(settings, number),
        }
        samples += [{"subject": key, "round": number, "figures": some} for key, some in figures.items()]
    sys.stdout.buffer.write(orjson.dumps(samples))


@asynccontextmanager
async def _cache(settings: Settings) -> AsyncIterator[Cache]:
    """A cache as a process of its own would have it."""
    redis_url = settings.redis_url.get_secret_value()
    watch = redis_client.open_watch(redis_url, block_seconds=settings.cache.watch_seconds)
    async with (
        open_line(redis_url, timeout_seconds=_LINE_SECONDS) as line,
        open_cache(line=line, watch=watch, keys=Keys(settings.registry.namespace), settings=settings.cache) as cache,
    ):
        yield cache


async def _user() -> Any:
    return {"id": 7, "name": "User7", "email": "user7@example.com", "created_at": "2026-01-01T00:00:00Z"}


async def _local(settings: Settings, calls: int) -> Figures:
    async with _cache(settings) as cache:

        async def hit(_: int) -> Any:
            return await cache.get_or_load("user:7", _user, ttl=_TTL_SECONDS)

        await hit(0)
        return await _cost(hit, calls)


async def _remote(settings: Settings, number: int) -> Figures:
    async with _cache(settings) as first:
        for user in range(_REMOTE_KEYS):
            await first.get_or_load(f"user:{number}-{user}", _user, ttl=_TTL_SECONDS)
    async with _cache(settings) as second:

        async def hit(user: int) -> Any:
            return await second.get_or_load(f"user:{number}-{user}", _no_load, ttl=_TTL_SECONDS)

        return await _cost(hit, _REMOTE_KEYS)


async def _no_load() -> Any:
    raise RuntimeError("Redis had it")


async def _misses(settings: Settings, number: int) -> Figures:
    loads = 0

    async def load() -> Any:
        nonlocal loads
        loads += 1
        await asyncio.sleep(_LOAD_SECONDS)
        return await _user()

    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(_cache(settings)) for _ in range(PROCESSES)]
        asked = [caches[n % PROCESSES].get_or_load(f"dear:{number}", load, ttl=_TTL_SECONDS) for n in range(CROWD)]
        await asyncio.gather(*asked)
    return {"loads": loads}


async def _cost(hit: Callable[[int], Awaitable[Any]], calls: int) -> Figures:
    cpu, wall = time.process_time(), time.perf_counter()
    for turn in range(calls):
        await hit(turn)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_us": cpu / calls * 1e6, "wall_us": wall / calls * 1e6}


if __name__ == "__main__":
    main()
