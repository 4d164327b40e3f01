"""What the stock does about orders, on every kind of database, and without the inbox that would spare it a second time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database
from app.events import Event
from app.events.handling.inbox import Inbox
from app.services.inventory.events import Line, OrderCancelled, OrderPlaced, OrderRejected, outbox
from app.services.inventory.handlers import release_cancelled, release_rejected, reserve
from app.services.inventory.logic import Item, State
from app.services.inventory.repository import ReservationRepository, StockRepository
from tests.services.conftest import Migrate
from tests.services.outboxes import published, types

NOW = datetime(2026, 11, 21, tzinfo=UTC)
FULL = {"cup": 10, "pot": 10, "tea": 0}


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    database = await migrated("inventory")
    for item in (Item("cup", "A cup", 10), Item("pot", "A pot", 10), Item("tea", "Tea", 0)):
        await StockRepository(database).add(item)
    return database


async def left(database: Database) -> dict[str, int]:
    return {item.sku: item.available for item in (await StockRepository(database).page(limit=100, cursor=None)).items}


async def held(database: Database, reference: str) -> State | None:
    found = await ReservationRepository(database).find(reference)
    return None if found is None else found.state


async def handle(database: Database, handler: Callable[[Any, AsyncSession], Awaitable[None]], event: Event) -> None:
    await database.transact(lambda session: handler(event, session))


def placed(reference: str = "r1", **quantities: int) -> OrderPlaced:
    lines = tuple(Line(sku=sku, quantity=quantity) for sku, quantity in quantities.items())
    return OrderPlaced(reference=reference, lines=lines)


RELEASES = {
    "rejected": lambda database, reference="r1": handle(database, release_rejected, OrderRejected(reference=reference)),
    "cancelled": lambda database, reference="r1": handle(
        database, release_cancelled, OrderCancelled(reference=reference)
    ),
}


async def test_an_order_is_reserved_and_that_is_told(database: Database) -> None:
    await handle(database, reserve, placed(pot=2, cup=10))
    assert (await held(database, "r1"), await left(database)) == (State.HELD, {"cup": 0, "pot": 8, "tea": 0})
    assert [(event.type, event.data) for event in await published(database, outbox)] == [
        ("reserved", {"reference": "r1"})
    ]


@pytest.mark.parametrize(
    ("wish", "code", "skus"),
    [
        ({"pot": 2, "tea": 1}, "out_of_stock", ["tea"]),
        ({"pot": 11, "cup": 1, "tea": 1}, "out_of_stock", ["pot", "tea"]),
        ({"pot": 2, "nothing": 1, "zilch": 1}, "unknown_items", ["nothing", "zilch"]),
    ],
)
async def test_a_refusal_takes_nothing_and_what_else_is_in_its_transaction_stays(
    wish: dict[str, int], code: str, skus: list[str], database: Database
) -> None:
    inbox = Inbox(database, outbox.tables.inbox)
    async with database.session() as session:
        await inbox.record(session, "event-1", NOW)
        await reserve(placed("r1", **wish), session)
    assert (await left(database), await held(database, "r1")) == (FULL, None)
    assert await inbox.known(["event-1"]) == {"event-1"}
    [refused] = await published(database, outbox)
    assert (refused.type, refused.data["code"], refused.data["skus"]) == ("refused", code, skus)
    if code == "out_of_stock":
        available = {short["sku"]: short["available"] for short in refused.data["shortages"]}
        assert available == {sku: FULL[sku] for sku in skus}


async def test_an_order_that_comes_twice_is_reserved_once_and_told_twice(database: Database) -> None:
    for _ in range(2):
        await handle(database, reserve, placed(pot=2))
    assert (await left(database))["pot"] == 8
    assert await types(database, outbox) == ["reserved", "reserved"]


async def test_a_reference_that_comes_for_other_items_is_refused(database: Database) -> None:
    await handle(database, reserve, placed(pot=2))
    await handle(database, reserve, placed(pot=3))
    assert (await left(database))["pot"] == 8
    assert (await published(database, outbox))[-1].data["code"] == "reference_used"


@pytest.mark.parametrize("name", RELEASES)
async def test_what_comes_to_nothing_is_released_once(name: str, database: Database) -> None:
    await handle(database, reserve, placed(pot=2))
    for _ in range(2):
        await RELEASES[name](database)
    assert (await held(database, "r1"), await left(database)) == (State.RELEASED, FULL)
    assert await types(database, outbox) == ["reserved", "released"]


@pytest.mark.parametrize("name", RELEASES)
async def test_an_order_that_comes_after_its_release_is_refused(name: str, database: Database) -> None:
    await RELEASES[name](database)
    await handle(database, reserve, placed(pot=2))
    assert (await held(database, "r1"), await left(database)) == (State.RELEASED, FULL)
    assert await types(database, outbox) == ["released", "refused"]
    assert (await published(database, outbox))[-1].data["code"] == "reference_used"


async def test_an_order_and_its_release_at_once_leave_no_stock_behind(database: Database) -> None:
    names = [f"r{n}" for n in range(10)]
    both = [f for r in names for f in (handle(database, reserve, placed(r, pot=1)), RELEASES["cancelled"](database, r))]
    await asyncio.gather(*both)
    assert await left(database) == FULL
    assert {await held(database, name) for name in names} == {State.RELEASED}


async def test_of_many_orders_for_the_last_pots_none_gets_anothers(database: Database) -> None:
    await StockRepository(database).change("pot", {"available": 5})
    await asyncio.gather(*(handle(database, reserve, placed(f"r{n}", pot=1)) for n in range(12)))
    assert (await left(database))["pot"] == 0
    assert sorted(await types(database, outbox)) == ["refused"] * 7 + ["reserved"] * 5
