from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.data import Database
from app.data.versions import Expected
from app.errors import IdempotencyKeyReused, InvalidInput, NotFound, PlatformError, PreconditionFailed, Unavailable
from app.services.orders import logic
from app.services.orders.logic import Draft, Line, Order, OutOfStock, State, UnknownItems
from app.services.orders.recovery import Policy, Recovery
from app.services.orders.repository import OrderRepository
from tests.services.conftest import Migrate
from tests.services.orders.doubles import Inventory, Users

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
FULL = {"assam": 10, "sencha": 10}
USERS = Users()

numbers = itertools.count()


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("orders")


@pytest.fixture
def orders(database: Database) -> OrderRepository:
    return OrderRepository(database)


@pytest.fixture
def inventory() -> Inventory:
    return Inventory()


def draft(*lines: Line, user_id: int = 7, key: str | None = None) -> Draft:
    return Draft(user_id, lines or (Line("sencha", 3), Line("assam", 2)), f"ref-{next(numbers)}", NOW, key)


async def place(orders: OrderRepository, inventory: Inventory, *lines: Line) -> Order:
    return await logic.place(draft(*lines), USERS, orders, inventory)


async def all_of(orders: OrderRepository) -> Sequence[Order]:
    """Every order that is written down, finished or not."""
    visible = (await orders.page(limit=100, cursor=None, user_id=None)).items
    return [*visible, *await orders.unsettled(before=LATER, limit=100)]


async def recover(orders: OrderRepository, inventory: Inventory) -> int:
    return await Recovery(Policy()).run_if_due(orders, inventory, now=LATER)


async def test_a_placed_order_is_confirmed_and_its_stock_taken(orders: OrderRepository, inventory: Inventory) -> None:
    order = await place(orders, inventory)
    assert order.state is State.CONFIRMED
    assert await logic.read(order.id, orders) == order
    assert order.lines == (Line("sencha", 3), Line("assam", 2))
    assert inventory.stock == {"assam": 8, "sencha": 7}


async def test_an_unknown_user_orders_nothing(orders: OrderRepository, inventory: Inventory) -> None:
    with pytest.raises(InvalidInput) as caught:
        await logic.place(draft(user_id=8), USERS, orders, inventory)
    assert caught.value.extensions["errors"][0]["path"] == "body.user_id"
    assert await all_of(orders) == []


@pytest.mark.parametrize(
    ("line", "refusal"), [(Line("assam", 11), OutOfStock), (Line("coffee", 1), UnknownItems)], ids=["short", "unknown"]
)
async def test_what_the_inventory_refuses_is_not_written_down(
    line: Line, refusal: type[PlatformError], orders: OrderRepository, inventory: Inventory
) -> None:
    with pytest.raises(refusal):
        await place(orders, inventory, line)
    assert await all_of(orders) == []
    assert inventory.stock == FULL


async def test_when_the_inventory_is_away_nothing_is_seen_and_later_nothing_is_left(
    orders: OrderRepository, inventory: Inventory
) -> None:
    inventory.before = 2
    with pytest.raises(Unavailable):
        await place(orders, inventory)
    assert (await orders.page(limit=100, cursor=None, user_id=None)).items == []
    (left,) = await all_of(orders)
    with pytest.raises(NotFound):
        await logic.read(left.id, orders)
    assert await recover(orders, inventory) == 1
    assert await all_of(orders) == []
    assert inventory.stock == FULL


async def test_when_the_answer_to_a_reservation_is_lost_it_is_given_back(
    orders: OrderRepository, inventory: Inventory
) -> None:
    inventory.after = 1
    with pytest.raises(Unavailable):
        await place(orders, inventory)
    assert await all_of(orders) == []
    assert inventory.stock == FULL


class Lost(BaseException):
    """The process is gone: no handler runs any more."""


class Crashing(OrderRepository):
    """Orders in a process that dies at its n-th step, before or after the database has done it."""

    def __init__(self, database: Database, step: int, *, done: bool) -> None:
        super().__init__(database)
        self._steps = step
        self._done = done

    async def add(self, draft: Draft) -> Order:
        self._crash(done=False)
        order = await super().add(draft)
        self._crash(done=True)
        return order

    async def move(self, order_id: int, source: State, target: State, *, expected: Expected = None) -> bool:
        self._crash(done=False)
        moved = await super().move(order_id, source, target, expected=expected)
        self._crash(done=True)
        return moved

    async def remove(self, order_id: int, state: State) -> bool:
        self._crash(done=False)
        removed = await super().remove(order_id, state)
        self._crash(done=True)
        return removed

    def _crash(self, *, done: bool) -> None:
        if done is self._done:
            self._steps -= 1
            if self._steps == 0:
                raise Lost


# The steps are the same on every database.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("trouble", ["none", "lost answer", "out of stock", "cancelled"])
async def test_a_crash_at_any_step_leaks_no_stock(
    trouble: str, step: int, done: bool, database: Database, orders: OrderRepository, inventory: Inventory
) -> None:
    crashing = Crashing(database, step, done=done)
    inventory.after = 1 if trouble == "lost answer" else 0
    try:
        line = Line("assam", 11 if trouble == "out of stock" else 2)
        order = await logic.place(draft(line), USERS, crashing, inventory)
        if trouble == "cancelled":
            await logic.cancel(order.id, crashing, inventory)
    except (Lost, PlatformError):
        inventory.after = 0
    await recover(orders, inventory)
    assert await orders.unsettled(before=LATER, limit=100) == []
    confirmed = [order for order in await all_of(orders) if order.state is State.CONFIRMED]
    assert inventory.stock["assam"] == 10 - 2 * len(confirmed)
    assert set(inventory.held) == {order.reference for order in confirmed}


async def test_an_order_that_was_given_up_while_it_was_placed_is_not_confirmed(
    orders: OrderRepository, inventory: Inventory
) -> None:
    class Slow(Inventory):
        async def reserve(self, reference: str, lines: Sequence[Line]) -> None:
            await super().reserve(reference, lines)
            await recover(orders, self)

    slow = Slow()
    with pytest.raises(Unavailable):
        await place(orders, slow)
    assert await all_of(orders) == []
    assert slow.stock == FULL


async def test_an_order_moves_and_goes_only_from_the_state_that_it_is_in(orders: OrderRepository) -> None:
    order = await orders.add(draft())
    assert await orders.move(order.id, State.PENDING, State.ABANDONED)
    assert not await orders.move(order.id, State.PENDING, State.CONFIRMED)
    assert not await orders.remove(order.id, State.PENDING)
    assert await orders.find(order.id) == replace(order, state=State.ABANDONED, version=2)
    assert await orders.remove(order.id, State.ABANDONED)
    assert await orders.find(order.id) is None


async def test_cancelling_gives_the_stock_back_once(orders: OrderRepository, inventory: Inventory) -> None:
    order = await place(orders, inventory)
    for _ in range(2):
        assert (await logic.cancel(order.id, orders, inventory)).state is State.CANCELLED
    assert inventory.stock == FULL
    assert (await logic.read(order.id, orders)).state is State.CANCELLED


async def test_cancelling_many_times_at_once_gives_the_stock_back_once(
    orders: OrderRepository, inventory: Inventory
) -> None:
    order = await place(orders, inventory)
    await asyncio.gather(*(logic.cancel(order.id, orders, inventory) for _ in range(8)))
    assert inventory.stock == FULL
    assert (await logic.read(order.id, orders)).state is State.CANCELLED


async def test_an_order_is_cancelled_in_the_version_that_is_meant(
    orders: OrderRepository, inventory: Inventory
) -> None:
    order = await place(orders, inventory)
    assert order == await logic.read(order.id, orders)
    for wrong in (frozenset({order.version + 1}), frozenset[int]()):
        with pytest.raises(PreconditionFailed):
            await logic.cancel(order.id, orders, inventory, expected=wrong)
    assert await logic.read(order.id, orders) == order
    cancelled = await logic.cancel(order.id, orders, inventory, expected=frozenset({order.version}))
    assert cancelled == replace(order, state=State.CANCELLED, version=cancelled.version)
    assert cancelled.version > order.version
    with pytest.raises(PreconditionFailed):
        await logic.cancel(order.id, orders, inventory, expected=frozenset({order.version}))
    assert await logic.cancel(order.id, orders, inventory, expected=frozenset({cancelled.version})) == cancelled


async def test_what_is_being_cancelled_in_its_present_version_is_finished(
    orders: OrderRepository, inventory: Inventory
) -> None:
    order = await place(orders, inventory)
    inventory.before = 1
    with pytest.raises(Unavailable):
        await logic.cancel(order.id, orders, inventory)
    half = await logic.read(order.id, orders)
    assert (
        await logic.cancel(order.id, orders, inventory, expected=frozenset({half.version}))
    ).state is State.CANCELLED
    assert inventory.stock == FULL


async def test_a_request_that_comes_again_finds_its_order(orders: OrderRepository, inventory: Inventory) -> None:
    order = await logic.place(draft(key="k"), USERS, orders, inventory)
    assert await logic.place(draft(key="k"), USERS, orders, inventory) == order
    assert (await logic.place(draft(key="other"), USERS, orders, inventory)).id != order.id
    cancelled = await logic.cancel(order.id, orders, inventory)
    assert await logic.place(draft(key="k"), USERS, orders, inventory) == cancelled
    assert len(await all_of(orders)) == 2


async def test_a_request_that_comes_again_with_another_order_is_refused(
    orders: OrderRepository, inventory: Inventory
) -> None:
    await logic.place(draft(Line("assam", 1), key="k"), USERS, orders, inventory)
    with pytest.raises(IdempotencyKeyReused):
        await logic.place(draft(Line("assam", 2), key="k"), USERS, orders, inventory)
    assert inventory.stock["assam"] == 9


async def test_of_many_equal_requests_at_once_comes_one_order(orders: OrderRepository, inventory: Inventory) -> None:
    wishes = [logic.place(draft(Line("assam", 1), key="k"), USERS, orders, inventory) for _ in range(20)]
    results = await asyncio.gather(*wishes)
    assert len({order.id for order in results}) == 1
    assert {order.state for order in results} == {State.CONFIRMED}
    assert inventory.stock["assam"] == 9


# The steps are the same on every database.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
@pytest.mark.parametrize("trouble", ["none", "lost answer", "away"])
async def test_a_request_that_comes_again_after_a_crash_makes_one_order(
    trouble: str, step: int, done: bool, database: Database, orders: OrderRepository, inventory: Inventory
) -> None:
    inventory.after = 1 if trouble == "lost answer" else 0
    inventory.before = 2 if trouble == "away" else 0
    crashing = Crashing(database, step, done=done)
    with suppress(Lost, PlatformError):
        await logic.place(draft(Line("assam", 1), key="k"), USERS, crashing, inventory)
    inventory.after = inventory.before = 0
    again = await logic.place(draft(Line("assam", 1), key="k"), USERS, orders, inventory)
    await recover(orders, inventory)
    assert await all_of(orders) == [again]
    assert again.state is State.CONFIRMED
    assert inventory.stock["assam"] == 9


async def test_what_was_never_ordered_cannot_be_cancelled(orders: OrderRepository, inventory: Inventory) -> None:
    with pytest.raises(NotFound):
        await logic.cancel(99, orders, inventory)


@pytest.mark.parametrize("again", ["by the client", "by recovery"])
async def test_a_cancellation_that_fails_half_way_is_finished(
    again: str, orders: OrderRepository, inventory: Inventory
) -> None:
    order = await place(orders, inventory)
    inventory.before = 1
    with pytest.raises(Unavailable):
        await logic.cancel(order.id, orders, inventory)
    assert (await logic.read(order.id, orders)).state is State.CANCELLING
    if again == "by the client":
        await logic.cancel(order.id, orders, inventory)
    else:
        assert await recover(orders, inventory) == 1
    assert (await logic.read(order.id, orders)).state is State.CANCELLED
    assert inventory.stock == FULL


async def test_recovery_leaves_young_orders_alone(orders: OrderRepository, inventory: Inventory) -> None:
    await orders.add(draft())
    young = NOW + timedelta(minutes=1)
    assert await Recovery(Policy()).run_if_due(orders, inventory, now=young) == 0
    assert len(await all_of(orders)) == 1


async def test_recovery_looks_once_per_interval_and_stops_where_it_fails(
    orders: OrderRepository, inventory: Inventory
) -> None:
    time = 0.0
    recovery = Recovery(Policy(interval_seconds=30), clock=lambda: time)
    for _ in range(2):
        await orders.add(draft())
    inventory.before = 1
    assert await recovery.run_if_due(orders, inventory, now=LATER) == 0
    assert await recovery.run_if_due(orders, inventory, now=LATER) == 0
    time = 30.0
    assert await recovery.run_if_due(orders, inventory, now=LATER) == 2
    assert await all_of(orders) == []


async def test_orders_are_listed_by_user_and_page(orders: OrderRepository, inventory: Inventory) -> None:
    placed = [await place(orders, inventory, Line("assam", 1)) for _ in range(5)]
    other = await orders.add(draft(user_id=8))
    await orders.move(other.id, State.PENDING, State.CONFIRMED)
    first = await orders.page(limit=3, cursor=None, user_id=7)
    second = await orders.page(limit=3, cursor=first.next, user_id=7)
    assert [*first.items, *second.items] == placed
    assert second.next is None
    assert len((await orders.page(limit=100, cursor=None, user_id=None)).items) == 6
