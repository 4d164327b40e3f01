"""The whole way: from a committed transaction to its effect elsewhere, once and in order."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.events.shop import Bought, Shop, each


async def test_what_is_committed_takes_effect_once(shop: Shop) -> None:
    async with shop.process():
        await shop.buy("ann", "bob", "ann")
        await shop.until_sold(3)
    assert await shop.sold("ann") == [1, 2]
    assert await shop.sold("bob") == [1]


async def test_what_is_rolled_back_is_never_heard_of(shop: Shop) -> None:
    async with shop.process():
        with pytest.raises(ZeroDivisionError):
            await _buy_and_fail(shop)
        await shop.buy("bob")
        await shop.until_sold(1)
    assert await shop.sold() == [1]


async def _buy_and_fail(shop: Shop) -> None:
    from tests.events.shop import outbox

    async with shop.database.session() as session:
        await outbox.publish(session, Bought(customer="ann", number=99))
        raise ZeroDivisionError


async def test_events_of_a_key_keep_their_order_over_many_processes(shop: Shop) -> None:
    customers = [f"c{n}" for n in range(10)]
    async with shop.process(), shop.process(), shop.process():
        for _ in range(10):
            await shop.buy(*each(customers, 2))
        await shop.until_sold(200)
    for customer in customers:
        assert await shop.sold(customer) == list(range(1, 21))


async def test_one_that_fails_keeps_its_key_waiting_and_nobody_else(shop: Shop) -> None:
    async def fail(bought: Bought, _: AsyncSession) -> None:
        if bought.customer == "ann" and not opened.is_set():
            raise RuntimeError("not now")

    opened = asyncio.Event()
    async with shop.process(fail, tries=1000):
        await shop.buy("ann", "bob", "ann", "cid")
        await shop.until_sold(2)
        assert await shop.sold("ann") == []
        opened.set()
        await shop.until_sold(4)
    assert await shop.sold("ann") == [1, 2]
