from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.data import Database
from app.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PlatformError,
    PreconditionFailed,
    Unavailable,
)
from app.services.orders import logic
from app.services.orders.events import outbox
from app.services.orders.logic import GIVEN_UP, Line, Order, OutOfStock, Rejection, State, UnknownItems
from app.services.orders.repository import OrderRepository, move
from tests.services.conftest import Migrate
from tests.services.orders.placing import NOW, POLICY, Users, draft, place
from tests.services.outboxes import published, types


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("orders")


@pytest.fixture
def orders(database: Database) -> OrderRepository:
    return OrderRepository(database)


async def test_a_placed_order_is_pending_and_told_of_now_and_when_it_is_overdue(
    database: Database, orders: OrderRepository
) -> None:
    before = datetime.now(UTC)
    order = await place(orders)
    assert await logic.read(order.id, orders) == order
    assert (order.state, order.lines) == (State.PENDING, (Line("sencha", 3), Line("assam", 2)))
    told = {event.type: event for event in await published(database, outbox)}
    lines = [{"sku": "sencha", "quantity": 3}, {"sku": "assam", "quantity": 2}]
    expected = {"reference": order.reference, "order_id": order.id, "user_id": 7, "lines": lines}
    assert told["placed"].data == expected
    assert told["overdue"].due_at >= before + POLICY.timeout > told["placed"].due_at


async def test_an_unknown_user_orders_nothing(database: Database, orders: OrderRepository) -> None:
    with pytest.raises(InvalidInput) as caught:
        await logic.place(draft(user_id=8), POLICY, Users(), orders)
    assert caught.value.extensions["errors"][0]["path"] == "body.user_id"
    assert (await orders.page(limit=100, cursor=None, user_id=None)).items == []
    assert await types(database, outbox) == []


async def test_an_order_that_cannot_be_written_is_not_told_of(database: Database, orders: OrderRepository) -> None:
    first = draft()
    await logic.place(first, POLICY, Users(), orders)
    with pytest.raises(Conflict):
        await logic.place(first, POLICY, Users(), orders)
    assert await types(database, outbox) == ["overdue", "placed"]


async def test_a_pending_order_is_cancelled_and_is_not_overdue_any_more(
    database: Database, orders: OrderRepository
) -> None:
    order = await place(orders)
    assert await logic.cancel(order.id, orders) == replace(order, state=State.CANCELLED, version=2)
    assert await types(database, outbox) == ["placed", "cancelled"]


async def test_an_order_that_is_cancelled_many_times_at_once_is_told_of_once(
    database: Database, orders: OrderRepository
) -> None:
    order = await place(orders)
    async with database.session() as session:
        await move(session, order.reference, State.CONFIRMED)
    cancelled = await asyncio.gather(*(logic.cancel(order.id, orders) for _ in range(8)))
    assert {each.state for each in cancelled} == {State.CANCELLED}
    assert await types(database, outbox) == ["placed", "confirmed", "cancelled"]


async def test_a_rejected_order_stays_rejected_whoever_cancels_it(database: Database, orders: OrderRepository) -> None:
    order = await place(orders)
    async with database.session() as session:
        await move(session, order.reference, State.REJECTED, GIVEN_UP)
    with pytest.raises(Conflict):
        await logic.cancel(order.id, orders)
    assert await logic.read(order.id, orders) == replace(order, state=State.REJECTED, rejection=GIVEN_UP, version=2)
    assert await types(database, outbox) == ["placed", "rejected"]


async def test_an_order_is_cancelled_in_the_version_that_is_meant(orders: OrderRepository) -> None:
    order = await place(orders)
    for wrong in (frozenset({order.version + 1}), frozenset[int]()):
        with pytest.raises(PreconditionFailed):
            await logic.cancel(order.id, orders, expected=wrong)
    assert await logic.read(order.id, orders) == order
    cancelled = await logic.cancel(order.id, orders, expected=frozenset({order.version}))
    assert cancelled == replace(order, state=State.CANCELLED, version=order.version + 1)
    with pytest.raises(PreconditionFailed):
        await logic.cancel(order.id, orders, expected=frozenset({order.version}))
    assert await logic.cancel(order.id, orders, expected=frozenset({cancelled.version})) == cancelled


async def test_a_request_that_comes_again_finds_its_order(database: Database, orders: OrderRepository) -> None:
    order = await place(orders, key="k")
    assert await place(orders, key="k") == order
    assert (await place(orders, key="other")).id != order.id
    cancelled = await logic.cancel(order.id, orders)
    assert await place(orders, key="k") == cancelled
    assert sorted(await types(database, outbox)) == ["cancelled", "overdue", "placed", "placed"]


async def test_of_many_equal_requests_at_once_comes_one_order(database: Database, orders: OrderRepository) -> None:
    results = await asyncio.gather(*(place(orders, Line("assam", 1), key="k") for _ in range(20)))
    assert len({order.id for order in results}) == 1
    assert sorted(await types(database, outbox)) == ["overdue", "placed"]


@pytest.mark.parametrize(("rejection", "again"), [(GIVEN_UP, True), (Rejection("out_of_stock"), False)])
async def test_a_request_begins_anew_if_its_order_took_too_long_and_hears_the_same_if_it_was_refused(
    rejection: Rejection, again: bool, database: Database, orders: OrderRepository
) -> None:
    order = await place(orders, key="k")
    async with database.session() as session:
        await move(session, order.reference, State.REJECTED, rejection)
    second = await place(orders, key="k")
    assert (second.id != order.id) is again
    assert second.state is (State.PENDING if again else State.REJECTED)


async def test_what_was_never_ordered_can_neither_be_read_nor_cancelled(orders: OrderRepository) -> None:
    for act in (logic.read, logic.cancel):
        with pytest.raises(NotFound):
            await act(99, orders)


async def test_orders_are_listed_by_user_and_page(orders: OrderRepository) -> None:
    placed = [await place(orders, Line("assam", 1)) for _ in range(5)]
    await orders.add(draft(user_id=8), POLICY)
    first = await orders.page(limit=3, cursor=None, user_id=7)
    second = await orders.page(limit=3, cursor=first.next, user_id=7)
    assert [*first.items, *second.items] == placed
    assert second.next is None
    assert len((await orders.page(limit=100, cursor=None, user_id=None)).items) == 6


# ------------------------------------------------------------------------------------------------------ what is answered

SHORT = Rejection("out_of_stock", "Out of stock: sencha", ("sencha",), ({"sku": "sencha", "available": 1},))


def ended(state: State, rejection: Rejection | None = None) -> Order:
    return Order(1, 7, state, "r1", NOW, (Line("assam", 2), Line("sencha", 3)), rejection)


@pytest.mark.parametrize(
    ("rejection", "error"),
    [
        (SHORT, OutOfStock),
        (Rejection("unknown_items", "?", ("sencha",)), UnknownItems),
        (GIVEN_UP, Unavailable),
        (Rejection("reference_used", "It was released"), Conflict),
        (Rejection("on_strike", "What a later inventory may say"), Conflict),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_a_rejection_is_told_as_the_error_that_it_is(rejection: Rejection, error: type[PlatformError]) -> None:
    assert type(logic.refusal(ended(State.REJECTED, rejection))) is error


def test_what_is_not_rejected_is_no_error() -> None:
    assert [logic.refusal(ended(state)) for state in State] == [None] * len(State)


def test_a_rejection_names_what_was_the_trouble() -> None:
    short, unknown = (
        logic.refusal(ended(State.REJECTED, rejection))
        for rejection in (SHORT, Rejection("unknown_items", "?", ("sencha",)))
    )
    assert short is not None
    assert (short.detail, short.extensions) == (SHORT.detail, {"skus": SHORT.skus, "shortages": SHORT.shortages})
    assert unknown is not None
    assert [error["path"] for error in unknown.extensions["errors"]] == ["body.items.1.sku"]
