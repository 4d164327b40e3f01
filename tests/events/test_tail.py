"""What is published, seen by somebody who only looks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis

from app import redis_client
from app.events.operating.tail import Tail
from app.events.position import Position
from app.mesh.keys import EventStream, Keys
from tests.events.shop import NAME

PARTITIONS = 3


@pytest.fixture
def streams(store: redis.Redis, keys: Keys) -> list[EventStream]:
    """The first has many entries; of the others the second has few, and the third is not there."""
    found = [EventStream(keys.events(NAME, p), "events", NAME, p) for p in range(PARTITIONS)]
    with store.pipeline() as pipeline:
        for number in range(1, 1201):
            pipeline.xadd(found[0].key, {"event": "?"}, id=f"{number}-0")
        for number in (5, 700, 1300):
            pipeline.xadd(found[1].key, {"event": "?"}, id=f"{number}-1")
        for stream in found[:2]:
            pipeline.pexpire(stream.key, 60_000)
        pipeline.execute()
    return found


@pytest.fixture
async def tail(redis_url: str, streams: list[EventStream]) -> AsyncIterator[Tail]:
    async with redis_client.open_watch(redis_url, block_seconds=0.1) as client:
        yield Tail(client, streams, block_seconds=0.1)


async def seen(tail: Tail) -> list[Position]:
    """All that is there now."""
    found: list[Position] = []
    while some := await tail.read():
        found += [entry.position for entry in some]
    return found


async def test_from_the_start_everything_comes_once_in_order_over_all_partitions(tail: Tail) -> None:
    found = await seen(tail)
    assert found == sorted(found)
    assert len(found) == len(set(found)) == 1203


async def test_what_was_there_is_left_out_and_what_comes_is_seen_also_where_nothing_was(
    tail: Tail, streams: list[EventStream], store: redis.Redis
) -> None:
    await tail.skip()
    assert await tail.read() == []
    store.xadd(streams[2].key, {"event": "?"}, id="1400-2")
    store.xadd(streams[0].key, {"event": "?"}, id="1401-2")
    for stream in (streams[0], streams[2]):
        store.pexpire(stream.key, 60_000)
    assert await seen(tail) == [Position(1400, 2), Position(1401, 2)]
