"""Who is in another transaction's way tries again, after a pause that grows and is never the same for two."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.context import Context, activate
from app.data import Contended, Database
from app.data.backoff import Backoff
from tests.data.databases import Connect

metadata = MetaData()
cups = Table("cups", metadata, Column("id", Integer, primary_key=True), Column("size", Integer), mysql_engine="InnoDB")


async def set_up(database: Database) -> None:
    async with database.session() as session:
        await (await session.connection()).run_sync(metadata.create_all)
        await session.execute(insert(cups), [{"id": 1, "size": 0}, {"id": 2, "size": 0}])


async def sizes(database: Database) -> list[int]:
    query = select(cups.c.size).order_by(cups.c.id)
    return list(await database.read(lambda session: session.scalars(query)))


async def test_the_victim_of_a_deadlock_is_run_again(server_url: str, connect: Connect) -> None:
    database = connect(server_url)
    await set_up(database)
    both, runs = asyncio.Barrier(2), 0

    async def grow(first: int, second: int) -> None:
        waited = False

        async def work(session: AsyncSession) -> None:
            nonlocal waited, runs
            runs += 1
            await session.execute(update(cups).where(cups.c.id == first).values(size=cups.c.size + 1))
            if not waited:
                waited = True
                await both.wait()
            await session.execute(update(cups).where(cups.c.id == second).values(size=cups.c.size + 1))

        await database.transact(work)

    await asyncio.gather(grow(1, 2), grow(2, 1))
    assert (runs, database.again["contended"]) == (3, 1)
    assert await sizes(database) == [2, 2]


async def test_a_crowd_that_takes_the_cups_in_any_order_gets_through(server_url: str, connect: Connect) -> None:
    database = connect(server_url, backoff=Backoff(attempts=20), rng=random.Random(7))
    await set_up(database)

    async def grow(*order: int) -> None:
        async def work(session: AsyncSession) -> None:
            for cup in order:
                await session.execute(update(cups).where(cups.c.id == cup).values(size=cups.c.size + 1))
                await asyncio.sleep(0)

        await database.transact(work)

    await asyncio.gather(*(grow(*((1, 2) if n % 2 else (2, 1))) for n in range(4)))
    assert await sizes(database) == [4, 4]


async def test_a_serialization_failure_is_run_again(postgres_url: str, connect: Connect) -> None:
    database = connect(postgres_url)
    await set_up(database)
    both, runs = asyncio.Barrier(2), 0

    async def grow(cup: int) -> None:
        waited = False

        async def work(session: AsyncSession) -> None:
            nonlocal waited, runs
            runs += 1
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            total = sum(await session.scalars(select(cups.c.size)))
            if not waited:
                waited = True
                await both.wait()
            await session.execute(update(cups).where(cups.c.id == cup).values(size=total + 1))

        await database.transact(work)

    try:
        await asyncio.gather(grow(1), grow(2))
        # One after the other: the second has seen what the first has written.
        assert (runs, sorted(await sizes(database))) == (3, [1, 2])
    finally:
        async with database.session() as session:
            await (await session.connection()).run_sync(metadata.drop_all)


async def test_a_lock_that_does_not_come_free_in_time_is_asked_for_again(server_url: str, connect: Connect) -> None:
    locked, given_up, freed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pause(_seconds: float) -> None:
        given_up.set()
        await freed.wait()

    database = connect(server_url, changed={"statement_timeout_seconds": 2.0}, sleep=pause)
    await set_up(database)

    async def hold() -> None:
        async with database.session() as session:
            await session.execute(update(cups).values(size=10))
            locked.set()
            await given_up.wait()
        freed.set()

    async def grow(session: AsyncSession) -> None:
        await session.execute(update(cups).where(cups.c.id == 1).values(size=cups.c.size + 1))

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        await locked.wait()
        await database.transact(grow)
    assert database.again["contended"] == 1
    assert await sizes(database) == [11, 10]


async def test_what_stays_contended_is_given_up_after_some_attempts(database_url: str, connect: Connect) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    database = connect(database_url, sleep=note, rng=random.Random(3))
    runs = 0

    async def work(_session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        raise Contended

    with pytest.raises(Contended):
        await database.transact(work)
    assert (runs, len(pauses)) == (5, 4)
    assert len(set(pauses)) == 4


async def test_a_request_without_the_time_for_a_pause_is_told_at_once(database_url: str, connect: Connect) -> None:
    slow = Backoff(first_seconds=1000.0, most_seconds=1000.0)
    database = connect(database_url, backoff=slow, rng=random.Random(3))

    async def work(_session: AsyncSession) -> None:
        raise Contended

    with activate(Context("test", deadline=time.monotonic() + 20)), pytest.raises(Contended):
        await database.transact(work)
    assert database.again["contended"] == 0


@given(st.integers(1, 60), st.integers(), st.floats(0, 100))
def test_a_pause_is_bounded_by_its_step_by_the_most_and_by_what_is_left(failures: int, seed: int, left: float) -> None:
    backoff = Backoff(attempts=50, first_seconds=0.02, most_seconds=0.5)
    pause = backoff.pause(failures, left, random.Random(seed))
    if failures >= 50:
        assert pause is None
    elif pause is not None:
        assert 0 <= pause <= min(0.02 * 2 ** (failures - 1), 0.5)
        assert pause < left


def test_pauses_grow() -> None:
    backoff, rng = Backoff(attempts=8), random.Random(1)
    means = [sum(backoff.pause(n, 100, rng) or 0 for _ in range(300)) / 300 for n in range(1, 6)]
    assert means == sorted(means)
    assert means[4] > 8 * means[0]
