"""Each event once, twice, too late and all at once, on every kind of database, and without the inbox that would spare us."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import update

from app.data import Database
from app.events import Event
from app.services.orders.events import OrderOverdue, Shortage, StockRefused, StockReserved, outbox
from app.services.orders.handlers import confirm, give_up, reject
from app.services.orders.logic import GIVEN_UP, Order, Rejection, State
from app.services.orders.models import orders as table
from app.services.orders.repository import OrderRepository, move
from tests.services.conftest import Migrate
from tests.services.orders.placing import Handler, handle, place
from tests.services.outboxes import published, types

SHORT = Rejection(
    "out_of_stock", "Out of stock: assam", ("assam",), ({"sku": "assam", "requested": 2, "available": 1},)
)


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("orders")


@pytest.fixture
def orders(database: Database) -> OrderRepository:
    return OrderRepository(database)


def reserved(reference: str) -> tuple[Handler, Event]:
    return confirm, StockReserved(reference=reference)


def refused(reference: str) -> tuple[Handler, Event]:
    shortage = Shortage(sku="assam", requested=2, available=1)
    said = {"code": SHORT.code, "detail": SHORT.detail, "skus": SHORT.skus, "shortages": (shortage,)}
    return reject, StockRefused(reference=reference, **said)


def overdue(reference: str) -> tuple[Handler, Event]:
    return give_up, OrderOverdue(reference=reference)


ANSWERS = {"reserved": reserved, "refused": refused, "overdue": overdue}
OUTCOMES = {
    "reserved": (State.CONFIRMED, None, "confirmed"),
    "refused": (State.REJECTED, SHORT, "rejected"),
    "overdue": (State.REJECTED, GIVEN_UP, "rejected"),
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_settles_a_pending_order_and_is_told_once(
    name: str, times: int, database: Database, orders: OrderRepository
) -> None:
    order, (state, rejection, told) = await place(orders), OUTCOMES[name]
    for _ in range(times):
        await handle(database, *ANSWERS[name](order.reference))
    assert await orders.find(order.id) == replace(order, state=state, rejection=rejection, version=2)
    # It is not overdue any more; so that is all there is.
    assert await types(database, outbox) == ["placed", told]
    last = (await published(database, outbox))[-1]
    code = {} if rejection is None else {"code": rejection.code}
    assert last.data == {"reference": order.reference, "order_id": order.id, "user_id": 7, **code}


@pytest.mark.parametrize("state", [State.CONFIRMED, State.REJECTED, State.CANCELLED])
async def test_what_comes_after_the_end_changes_nothing(
    state: State, database: Database, orders: OrderRepository
) -> None:
    order = await place(orders)
    async with database.session() as session:
        await move(session, order.reference, state, SHORT if state is State.REJECTED else None)
    before = (await orders.find(order.id), await published(database, outbox))
    for answer in ANSWERS.values():
        await handle(database, *answer(order.reference))
    assert (await orders.find(order.id), await published(database, outbox)) == before


async def test_of_all_that_happens_at_once_one_is_what_happened(database: Database, orders: OrderRepository) -> None:
    placed = [await place(orders) for _ in range(6)]

    async def everything(order: Order) -> None:
        answers = [handle(database, *answer(order.reference)) for answer in ANSWERS.values()]
        await asyncio.gather(*answers, orders.cancel(order.id))

    await asyncio.gather(*map(everything, placed))
    for order in placed:
        said = [event.type for event in await published(database, outbox) if event.data["reference"] == order.reference]
        found = await orders.find(order.id)
        assert found is not None
        assert said in (["placed", "rejected"], ["placed", "cancelled"], ["placed", "confirmed", "cancelled"])
        assert found.state == said[-1]
        assert (found.rejection is not None) is (found.state is State.REJECTED)


async def test_an_answer_to_nobody_is_no_error(database: Database, orders: OrderRepository) -> None:
    for answer in ANSWERS.values():
        await handle(database, *answer("never-heard-of"))
    assert await types(database, outbox) == []


async def test_an_order_that_the_flow_before_has_abandoned_can_only_be_given_up(
    database: Database, orders: OrderRepository
) -> None:
    order = await place(orders)
    async with database.session() as session:
        await session.execute(update(table).values(state="abandoned"))
    await handle(database, *reserved(order.reference))
    found = await orders.find(order.id)
    assert found is not None
    assert found.state is State.ABANDONED
    await handle(database, *overdue(order.reference))
    found = await orders.find(order.id)
    assert found is not None
    assert found.state is State.REJECTED
