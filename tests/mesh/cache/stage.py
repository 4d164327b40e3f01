"""Caches as processes have them: each with a line, a watch and a name of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from app import redis_client
from app import settings as app_settings
from app.mesh.cache import Cache, open_cache
from app.mesh.coordination import open_line
from app.mesh.keys import Keys
from app.mesh.observer import Observer
from app.settings import CacheSettings
from tests.mesh.actors import until


def cache_settings(**changes: Any) -> CacheSettings:
    """As in production, with patience for a busy machine and without chance."""
    calm = {"redis_timeout_seconds": 2.0, "watch_seconds": 1.0, "jitter": 0.0, "beta": 0.0}
    return app_settings.load(cache=calm | changes).cache


@asynccontextmanager
async def process_cache(
    redis_url: str, namespace: str, *, observer: Observer | None = None, **changes: Any
) -> AsyncIterator[Cache]:
    """The cache of one process, hearing what the others invalidate unless Redis is away."""
    settings = cache_settings(**changes)
    async with (
        open_line(redis_url, timeout_seconds=settings.redis_timeout_seconds) as line,
        open_cache(
            line=line,
            watch=redis_client.open_watch(redis_url, block_seconds=settings.watch_seconds),
            keys=Keys(namespace),
            settings=settings,
            observer=observer,
        ) as cache,
    ):
        await cache.get("somebody looks")  # the watch starts with the first use
        if line.up:
            await until(lambda: cache.watched)
        yield cache


def outcomes(cache: Cache, name: str) -> dict[str, int]:
    """How often `name` had which outcome."""
    found: dict[str, int] = cache.describe()["outcomes"].get(name, {})
    return found


class Source:
    """What is cached: a value that can change, fail and be slow; it counts how often it is asked."""

    def __init__(self, value: Any = 1) -> None:
        self.value = value
        self.error: Exception | None = None
        self.loads = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> Any:
        self.loads += 1
        value = self.value
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return value

    def close_gate(self) -> asyncio.Event:
        """From now on loads wait for the event that this returns."""
        self.gate = asyncio.Event()
        return self.gate


async def started(work: Callable[[], Awaitable[Any]], source: Source) -> asyncio.Task[Any]:
    """`work` as a task that has reached its load of `source`."""
    before = source.loads
    task: asyncio.Task[Any] = asyncio.ensure_future(work())
    await until(lambda: source.loads > before or task.done())
    return task
