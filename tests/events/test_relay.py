"""The relay alone: whatever happens to it, to Redis or to the database, the streams hold what was committed, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import func, select

from app.data import Database
from app.errors import Unavailable
from app.events import envelope
from app.events.publishing import trimming
from app.events.publishing.ledger import Ledger, Overtaken
from app.events.publishing.relay import Invalidate, Relay
from app.events.publishing.retention import Policy, Retention
from app.events.publishing.streams import Streams
from app.mesh.coordination import Line, open_line
from app.mesh.keys import Keys
from tests.events.shop import NAME, Bought, Shop, Witness, outbox

PARTITIONS = 2


@pytest.fixture
async def line(redis_url: str, store: Any) -> AsyncIterator[Line]:
    async with open_line(redis_url, timeout_seconds=2.0) as opened:
        yield opened


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, outbox.tables)


@pytest.fixture
def make(shop: Shop, ledger: Ledger, line: Line, keys: Keys) -> Callable[..., Relay]:
    """Relays of one service, as if each was in a process of its own."""

    def make(invalidate: Invalidate = shop._forget, now: Callable[[], datetime] = _now) -> Relay:
        streams = Streams(line, keys, NAME, PARTITIONS)
        policy = Policy(trimming.Policy(age_ms=3_600_000, length=1_000), outbox=timedelta(hours=1))
        retention = Retention(policy, ledger, streams, observer=shop.witness, now=now)
        relay = Relay(
            ledger,
            streams,
            invalidate=invalidate,
            retention=retention,
            observer=shop.witness,
            check_seconds=1.0,
            now=now,
        )  # fmt: skip
        relay._doubt_all()
        return relay

    return make


@pytest.fixture
def read(store: Any, keys: Keys) -> Callable[[], dict[str, list[int]]]:
    """What the streams hold: the numbers of each customer, in order."""

    def read() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for event in _entries(store, keys):
            found.setdefault(event.data["customer"], []).append(event.data["number"])
        return found

    return read


async def test_what_was_committed_is_sent_once_and_in_order(
    shop: Shop, make: Callable[..., Relay], read: Callable[[], object]
) -> None:
    relay = make()
    await shop.buy("ann", "bob", "ann")
    assert await relay.step() == 3
    assert await relay.step() == 0
    await shop.buy("ann")
    assert await relay.step() == 1
    assert read() == {"ann": [1, 2, 3], "bob": [1]}


async def test_one_that_died_between_database_and_redis_is_followed_by_one_that_sends_the_rest(
    shop: Shop, ledger: Ledger, make: Callable[..., Relay], read: Callable[[], object]
) -> None:
    await make().step()
    await shop.buy("ann", "bob")
    await ledger.claim(await ledger.due(_now(), 10), last=await ledger.last_batch(), batch=_ms(_now()))
    await shop.buy("ann", "bob")
    assert await make().step() == 2
    assert read() == {"ann": [1, 2], "bob": [1, 2]}


async def test_two_at_once_send_nothing_twice_and_keep_the_order(
    shop: Shop, ledger: Ledger, make: Callable[..., Relay], read: Callable[[], object]
) -> None:
    one, other = make(), make()
    await one.step()
    await other.step()
    await shop.buy("ann")
    # The first has numbered its batch, and stands still before it sends.
    claimed = await ledger.claim(await ledger.due(_now(), 10), last=await ledger.last_batch(), batch=_ms(_now()))
    await shop.buy("ann")
    with pytest.raises(Overtaken):
        await other.step()
    other._doubt_all()
    await other.step()
    await one._deliver(claimed)
    await one._restore()
    await shop.buy("ann")
    await other.step()
    assert read() == {"ann": [1, 2, 3]}


async def test_what_another_has_claimed_can_not_be_claimed(shop: Shop, ledger: Ledger) -> None:
    await shop.buy("ann", "bob")
    rows = await ledger.due(_now(), 10)
    await ledger.claim(rows[:1], last=0, batch=5)
    with pytest.raises(Overtaken):
        await ledger.claim(rows[1:], last=0, batch=6)
    with pytest.raises(Overtaken):
        await ledger.claim(rows, last=5, batch=6)
    assert [row.batch for row in await ledger.claim(rows[1:], last=5, batch=6)] == [6]


async def test_a_database_from_a_backup_sends_what_is_new(
    shop: Shop,
    database: Database,
    make: Callable[..., Relay],
    read: Callable[[], object],
    store: Any,
    keys: Keys,
) -> None:
    await shop.buy("ann")
    await make().step()
    # Redis is ahead of anything that this database knows, as if it had been sent by the one that is lost.
    tomorrow = _ms(_now() + timedelta(days=1))
    foreign = store.xrange(keys.events(NAME, 0)) + store.xrange(keys.events(NAME, 1))
    for partition in range(PARTITIONS):
        store.xadd(keys.events(NAME, partition), foreign[0][1], id=f"{tomorrow}-7")
    await shop.buy("ann", "bob")
    await make().step()
    assert read()["bob"] == [1]  # type: ignore[index]
    assert read()["ann"][-1] == 2  # type: ignore[index]


async def test_a_stale_replica_gets_what_it_lacks(
    shop: Shop, make: Callable[..., Relay], read: Callable[[], object], redis_url: str, keys: Keys
) -> None:
    relay = make()
    await shop.buy("ann", "bob")
    await relay.step()
    with closing(redis.Redis.from_url(redis_url)) as raw:
        streams = [keys.events(NAME, partition) for partition in range(PARTITIONS)]
        older = {stream: raw.dump(stream) for stream in streams if raw.exists(stream)}
        await shop.buy("ann", "bob")
        await relay.step()
        for stream, content in older.items():
            raw.restore(stream, 60_000, content, replace=True)  # type: ignore[arg-type]
    await shop.buy("ann")
    await relay.step()
    assert read() == {"ann": [1, 2, 3], "bob": [1, 2]}


async def test_it_waits_until_everybody_can_hear_of_an_invalidation(
    shop: Shop, database: Database, make: Callable[..., Relay], store: Any, keys: Keys
) -> None:
    async def unheard(*_: str) -> bool:
        return False

    async with database.session() as session:
        await outbox.invalidate(session, "user:7", "user:8")
    with pytest.raises(Unavailable):
        await make(unheard).step()
    assert _entries(store, keys, every=True) == []
    await make().step()
    assert shop.forgotten == ["user:7", "user:8"]
    assert len(_entries(store, keys, every=True)) == 1


async def test_an_event_waits_until_it_is_due(
    shop: Shop, make: Callable[..., Relay], read: Callable[[], object]
) -> None:
    await shop.buy("ann", at=timedelta(hours=1))
    await shop.buy("bob")
    await make().step()
    assert read() == {"bob": [1]}
    await make(now=lambda: _now() + timedelta(hours=2)).step()
    assert read() == {"ann": [1], "bob": [1]}


async def test_an_event_that_is_not_yet_due_can_be_withdrawn(
    shop: Shop, database: Database, make: Callable[..., Relay], read: Callable[[], object]
) -> None:
    async with database.session() as session:
        event_id = await outbox.publish(session, Bought(customer="ann", number=1), at=timedelta(hours=1))
    async with database.session() as session:
        assert await outbox.withdraw(session, event_id)
        assert not await outbox.withdraw(session, event_id)
    await make(now=lambda: _now() + timedelta(hours=2)).step()
    assert read() == {}


async def test_what_is_old_and_handled_goes_and_what_somebody_has_not_handled_stays(
    shop: Shop, database: Database, make: Callable[..., Relay], store: Any, keys: Keys, ledger: Ledger
) -> None:
    await shop.buy("ann", "bob", "cid", "dan")
    await make().step()
    streams = [keys.events(NAME, partition) for partition in range(PARTITIONS)]
    for stream in streams:
        store.xgroup_create(stream, "slow", id="0")
        store.xgroup_create(stream, "quick", id="$")
    store.xreadgroup("slow", "someone", {streams[0]: ">"})
    late = _now() + timedelta(hours=2)
    await make(now=lambda: late)._retention.run()
    assert await _rows(database) == 4
    for stream in streams:
        store.xgroup_setid(stream, "slow", "$")
    store.xack(streams[0], "slow", *[entry for entry, _ in store.xrange(streams[0])])
    await make(now=lambda: late)._retention.run()
    assert await _rows(database) == 0


async def test_what_nobody_handles_for_very_long_goes_with_a_warning(
    shop: Shop, database: Database, make: Callable[..., Relay], store: Any, keys: Keys
) -> None:
    await shop.buy("ann")
    await make().step()
    for partition in range(PARTITIONS):
        store.xgroup_create(keys.events(NAME, partition), "away", id="0", mkstream=True)
        store.expire(keys.events(NAME, partition), 60)
    await make(now=lambda: _now() + timedelta(hours=4))._retention.run()
    assert await _rows(database) == 0
    assert shop.witness.notices["purged_unread"] == 1


async def test_a_stream_that_grows_too_long_is_cut_with_a_warning(
    shop: Shop, line: Line, ledger: Ledger, make: Callable[..., Relay], store: Any, keys: Keys
) -> None:
    stream = keys.events(NAME, 0)
    await make().step()
    for number in range(1, 1_300):
        store.xadd(stream, {"event": "{}"}, id=f"{number}-0")
    store.expire(stream, 60)
    witness = Witness()
    policy = Policy(trimming.Policy(age_ms=3_600_000, length=1_000), outbox=timedelta(hours=1))
    await Retention(policy, ledger, Streams(line, keys, NAME, PARTITIONS), observer=witness).run()
    assert store.xlen(stream) < 1_299
    assert witness.notices["trimmed_unread"] == 1_299 - store.xlen(stream)


async def _rows(database: Database) -> int:
    async with database.reading() as session:
        return int(await session.scalar(select(func.count()).select_from(outbox.tables.outbox)) or 0)


def _entries(store: Any, keys: Keys, *, every: bool = False) -> list[envelope.CloudEvent]:
    events = [
        envelope.parse(fields["event"])
        for partition in range(PARTITIONS)
        for _, fields in store.xrange(keys.events(NAME, partition))
    ]
    return [event for event in events if every or event.type == "shop.bought"]


def _now() -> datetime:
    return datetime.now(UTC)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
