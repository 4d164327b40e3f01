"""What a process tells an operator of its events, and that it keeps to itself what is in them."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database
from app.dev.redis import Server
from app.events.assembly import Events
from app.mesh.keys import Keys
from tests.events.shop import Bought, Shop, until

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_who_has_nothing_to_do_with_events_says_so() -> None:
    told = Events().describe()
    assert (told["relay"], told["partitions"], told["open_handlers"], told["last_error"]) == ("none", [], 0, None)


@on_sqlite
async def test_it_says_whether_it_sends_what_it_handles_and_what_went_wrong_last(shop: Shop) -> None:
    gate = asyncio.Event()

    async def handle(bought: Bought, _: AsyncSession) -> None:
        if bought.customer == "ann":
            raise RuntimeError(f"{bought.customer} again")
        await gate.wait()

    async with shop.process(handle, tries=1) as events:
        # One after the other: who waits has SQLite's one write transaction.
        await shop.buy("ann")
        await until(lambda: _has_failed(events))
        await shop.buy("bob")
        await until(lambda: _is(events, open_handlers=1, relay="leading", partitions=[0, 1, 2, 3]))
        gate.set()
        await shop.until_sold(1)
        await until(lambda: _is(events, open_handlers=0))
        told = events.describe()
    assert (told["last_error"]["type"], told["last_error"]["error"]) == ("shop.bought", "RuntimeError")
    assert told["relay_trouble"] is None
    assert "ann" not in repr(told)


@on_sqlite
async def test_it_says_why_events_must_wait_for_as_long_as_they_must(
    database: Database, private_redis: Server, keys: Keys
) -> None:
    own = Shop(database, private_redis.url, keys)
    async with own.process(listening=False, lease_seconds=30, redis_timeout_seconds=0.1) as events:
        await until(lambda: _is(events, relay="leading", relay_trouble=None))
        assert private_redis.pid is not None
        os.kill(private_redis.pid, signal.SIGSTOP)
        try:
            await until(lambda: _is_in_trouble(events))
        finally:
            os.kill(private_redis.pid, signal.SIGCONT)
        await until(lambda: _is(events, relay_trouble=None))


async def _is(events: Events, **expected: object) -> bool:
    told = events.describe()
    return {name: told[name] for name in expected} == expected


async def _has_failed(events: Events) -> bool:
    return events.describe()["last_error"] is not None


async def _is_in_trouble(events: Events) -> bool:
    return "Redis is away" in (events.describe()["relay_trouble"] or "")
