"""Puts a process's cache together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio

from app.mesh.cache.cache import Cache
from app.mesh.cache.remote import Remote
from app.mesh.cache.shelf import Shelf
from app.mesh.coordination.line import Line
from app.mesh.coordination.watch import Watch
from app.mesh.keys import Keys
from app.mesh.observer import Observer
from app.settings import CacheSettings


@asynccontextmanager
async def open_cache(
    *, line: Line, watch: redis.asyncio.Redis, keys: Keys, settings: CacheSettings, observer: Observer | None = None
) -> AsyncIterator[Cache]:
    """Open the cache of one process; a Redis that is away is not fatal.

    Args:
        line: stays the caller's.
        watch: a client for blocking reads of ``watch_seconds``; the cache's from here on.
    """
    remote = Remote(line, keys, settings)

    def make_watch(shelf: Shelf) -> Watch:
        return Watch(
            watch, keys.cache_log, origin=remote.origin, listener=shelf, block_seconds=settings.watch_seconds
        )  # fmt: skip

    async with Cache(settings, remote=remote, watch=make_watch, observer=observer) as cache:
        yield cache
