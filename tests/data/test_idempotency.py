from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Table, func, select

from app.data import Database, idempotency, tables
from app.data.idempotency import Claim, Ledger, Policy, Reply
from app.errors import IdempotencyKeyReused, RequestInFlight
from tests.data.databases import SETTINGS

LEASE = timedelta(seconds=30)
DAY = timedelta(hours=24)
CREATED = Reply(201, {"Location": "/toys/1"}, '{"name":"Zoë"}'.encode() + bytes(range(256)))

METADATA = tables.metadata()
TABLE = idempotency.table(METADATA, "toys")


# For what is decided in Python, and the same on every database.
ANY_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass
class World:
    """A ledger whose clocks a test can move."""

    database: Database
    table: Table = TABLE
    now: datetime = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.database, self.table, self.policy, now=lambda: self.now, clock=self.seconds)

    def seconds(self) -> float:
        return self.now.timestamp()

    async def claim(self, key: str = "k", fingerprint: str = "f") -> Claim | Reply:
        return await self.ledger.claim(key, fingerprint, lease=LEASE)

    async def hold(self, key: str = "k", fingerprint: str = "f") -> Claim:
        claim = await self.claim(key, fingerprint)
        assert isinstance(claim, Claim)
        return claim

    async def answer(self, key: str) -> None:
        assert await self.ledger.keep(await self.hold(key), CREATED)

    async def rows(self) -> int:
        async with self.database.reading() as session:
            return int((await session.execute(select(func.count()).select_from(TABLE))).scalar_one())


@pytest.fixture
async def world(database: Database) -> World:
    async with database.session() as session:
        await (await session.connection()).run_sync(METADATA.create_all)
    return World(database)


async def test_a_request_is_dealt_with_once_and_answered_the_same_afterwards(world: World) -> None:
    claim = await world.hold()
    with pytest.raises(RequestInFlight) as caught:
        await world.claim()
    assert caught.value.retry_after == 1.0
    assert await world.ledger.keep(claim, CREATED)
    assert [await world.claim() for _ in range(2)] == [CREATED, CREATED]
    assert isinstance(await world.claim("another"), Claim)


@ANY_DATABASE
async def test_an_empty_reply_is_a_reply(world: World) -> None:
    empty = Reply(204, {}, b"")
    assert await world.ledger.keep(await world.hold(), empty)
    assert await world.claim() == empty


@ANY_DATABASE
@pytest.mark.parametrize("answered", [False, True], ids=["in flight", "answered"])
async def test_a_key_stands_for_one_request_only(world: World, answered: bool) -> None:
    claim = await world.hold()
    if answered:
        await world.ledger.keep(claim, CREATED)
    with pytest.raises(IdempotencyKeyReused):
        await world.claim(fingerprint="other")


async def test_of_twenty_who_come_at_once_one_deals_with_it(world: World) -> None:
    results = await asyncio.gather(*(world.claim() for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Claim) for result in results) == 1
    assert sum(isinstance(result, RequestInFlight) for result in results) == 19


async def test_of_twenty_who_find_a_lapsed_lease_at_once_one_deals_with_it(world: World) -> None:
    await world.hold()
    world.now += LEASE
    results = await asyncio.gather(*(world.claim() for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Claim) for result in results) == 1, results
    assert sum(isinstance(result, RequestInFlight) for result in results) == 19


async def test_what_a_late_holder_says_counts_no_more(world: World) -> None:
    late = await world.hold()
    world.now += LEASE
    newer = await world.hold()
    assert not await world.ledger.keep(late, Reply(200, {}, b"late"))
    await world.ledger.forget(late)
    with pytest.raises(RequestInFlight):
        await world.claim()
    assert await world.ledger.keep(newer, CREATED)
    assert await world.claim() == CREATED


@ANY_DATABASE
async def test_a_lease_counts_until_it_has_run_out(world: World) -> None:
    await world.hold()
    world.now += LEASE - timedelta(microseconds=1)
    with pytest.raises(RequestInFlight):
        await world.claim()


@ANY_DATABASE
async def test_what_was_forgotten_is_dealt_with_again(world: World) -> None:
    await world.ledger.forget(await world.hold())
    assert isinstance(await world.claim(fingerprint="other"), Claim)


@ANY_DATABASE
async def test_a_reply_is_kept_for_a_day(world: World) -> None:
    await world.answer("k")
    world.now += DAY - timedelta(seconds=1)
    assert await world.claim() == CREATED
    world.now += timedelta(seconds=1)
    claim = await world.hold(fingerprint="other")
    assert await world.ledger.keep(claim, Reply(200, {}, b""))
    world.now += DAY - timedelta(seconds=1)
    assert await world.claim(fingerprint="other") == Reply(200, {}, b"")


async def test_old_replies_go_in_batches_once_a_minute(database: Database, world: World) -> None:
    small = World(database, policy=Policy(batch=2))
    for number in range(3):
        await small.answer(f"old-{number}")
    small.now += DAY + timedelta(seconds=1)
    await small.answer("young")
    assert [await small.ledger.purge_if_due() for _ in range(2)] == [2, 0]
    small.now += timedelta(seconds=59)
    assert await small.ledger.purge_if_due() == 0
    small.now += timedelta(seconds=1)
    assert await small.ledger.purge_if_due() == 1
    assert await small.rows() == 1
    assert await small.claim("young") == CREATED


async def test_what_is_claimed_anew_while_old_replies_go_stays(world: World) -> None:
    await world.answer("k")
    world.now += DAY + timedelta(seconds=1)
    claim, _ = await asyncio.gather(world.hold(), world.ledger.purge_if_due())
    with pytest.raises(RequestInFlight):
        await world.claim()
    assert await world.ledger.keep(claim, CREATED)


async def test_while_the_database_is_away_nothing_is_removed_and_nothing_fails() -> None:
    away = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none", SETTINGS)
    assert await Ledger(away, TABLE).purge_if_due() == 0
    await away.close()
