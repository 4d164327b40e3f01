"""Processes come, go and die: each event has one owner, and no effect happens twice."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.events.partition import slot_of
from app.mesh.keys import Keys
from tests.events.shop import NAME, Bought, Shop, each, until

CUSTOMERS = [f"c{n}" for n in range(12)]


async def test_a_handler_that_is_slower_than_the_lease_runs_once(shop: Shop) -> None:
    runs = 0

    async def slowly(_: Bought, __: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(2.5)

    async with shop.process(slowly, lease_seconds=1.5), shop.process(slowly, lease_seconds=1.5):
        await shop.buy("ann")
        await shop.until_sold(1)
    assert runs == 1
    assert shop.witness.outcomes == {"done": 1}


async def test_a_process_that_stops_finishes_what_it_has_begun(shop: Shop) -> None:
    begun = asyncio.Event()

    async def slowly(_: Bought, __: AsyncSession) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    async with shop.process(slowly):
        await shop.buy("ann")
        await begun.wait()
    assert await shop.sold() == [1]
    assert shop.witness.outcomes == {"done": 1}


async def test_partitions_move_to_those_who_come_and_back_from_those_who_go(shop: Shop) -> None:
    async with shop.process() as first:
        await until(lambda: _holds(first, 4))
        async with shop.process() as second:
            await until(lambda: _share(first, second))
            await shop.buy(*each(CUSTOMERS, 3))
            await shop.until_sold(36)
        await until(lambda: _holds(first, 4))
        await shop.buy(*CUSTOMERS)
        await shop.until_sold(48)
    for customer in CUSTOMERS:
        assert await shop.sold(customer) == [1, 2, 3, 4]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_nobody_is_cut_off_for_a_newcomer(shop: Shop) -> None:
    # One for each partition.
    customers = list({slot_of(customer) % 4: customer for customer in CUSTOMERS}.values())
    runs, begun, gate = 0, asyncio.Event(), asyncio.Event()

    async def wait(_: Bought, __: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        if runs == len(customers) == 4:
            begun.set()
        await gate.wait()

    async with shop.process(wait, drain_seconds=0.0) as first:
        await shop.buy(*customers)
        await begun.wait()
        async with shop.process(wait, drain_seconds=0.0) as newcomer:
            # It has asked for its half, and the other one has looked whether somebody does.
            await asyncio.sleep(2.5)
            assert _partitions(newcomer) == []
            gate.set()
            await until(lambda: _share(first, newcomer))
            assert shop.witness.outcomes == {"done": 4}


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_what_a_paused_owner_has_taken_is_handled_by_its_successor_once(
    shop: Shop, store: Any, keys: Keys
) -> None:
    held = asyncio.Event()
    gate = asyncio.Event()

    async def stand_still(_: Bought, __: AsyncSession) -> None:
        held.set()
        await gate.wait()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(shop.process(stand_still))
        await shop.buy("ann")
        await held.wait()
        # As if it had been away for longer than its lease: it learns of that late.
        for partition in range(4):
            store.set(keys.lock(f"events:{NAME}:{partition}"), "somebody else", px=300)
        await stack.enter_async_context(shop.process())
        gate.set()
        await shop.until_sold(1)
        await shop.buy("ann")
        await shop.until_sold(2)
    assert await shop.sold("ann") == [1, 2]


async def test_consumers_that_are_gone_are_forgotten(shop: Shop, store: Any, keys: Keys) -> None:
    async with shop.process():
        await shop.buy(*CUSTOMERS)
        await shop.until_sold(12)
    async with shop.process() as events:
        await until(lambda: _holds(events, 4))
        await shop.buy(*CUSTOMERS)
        await shop.until_sold(24)
        names = {
            consumer["name"]
            for partition in range(4)
            for consumer in store.xinfo_consumers(keys.events(NAME, partition), NAME)
        }
    assert names == {"shop-2"}


async def _holds(events: object, count: int) -> bool:
    return len(_partitions(events)) == count


async def _share(first: object, second: object) -> bool:
    mine, theirs = _partitions(first), _partitions(second)
    return bool(mine and theirs) and len(mine) + len(theirs) == 4


def _partitions(events: object) -> list[int]:
    found: list[int] = events.describe()["partitions"]  # type: ignore[attr-defined]
    return found
