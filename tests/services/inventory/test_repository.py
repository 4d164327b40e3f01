from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from app import settings
from app.data import Database
from app.errors import InvalidInput, PreconditionFailed
from app.services.inventory import demo, logic
from app.services.inventory.logic import (
    Item,
    ItemReserved,
    Line,
    OutOfStock,
    ReferenceUsed,
    Reservation,
    SkuTaken,
    State,
    UnknownItems,
)
from app.services.inventory.repository import ReservationRepository, StockRepository
from tests.services.conftest import Migrate

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("inventory")


@pytest.fixture
async def stock(database: Database) -> StockRepository:
    stock = StockRepository(database)
    for item in (Item("cup", "A cup", 10), Item("pot", "A pot", 10), Item("tea", "Tea", 0)):
        await stock.add(item)
    return stock


@pytest.fixture
def reservations(database: Database, stock: StockRepository) -> ReservationRepository:
    return ReservationRepository(database)


async def left(stock: StockRepository) -> dict[str, int]:
    return {item.sku: item.available for item in (await stock.page(limit=100, cursor=None)).items}


async def test_an_item_is_found_as_it_was_added(stock: StockRepository) -> None:
    assert await stock.find("pot") == Item("pot", "A pot", 10)
    assert await stock.find("POT") is None
    with pytest.raises(SkuTaken):
        await stock.add(Item("pot", "Another", 1))


async def test_a_request_that_comes_again_finds_what_it_has_added(stock: StockRepository) -> None:
    pan = Item("pan", "A pan", 4)
    assert await asyncio.gather(*(stock.add(pan, request_key="k") for _ in range(10))) == [pan] * 10
    changed = await stock.change("pan", {"available": 3})
    assert await stock.add(pan, request_key="k") == changed
    for other in ("j", None):
        with pytest.raises(SkuTaken):
            await stock.add(pan, request_key=other)


async def test_items_are_changed_and_removed(stock: StockRepository) -> None:
    assert await stock.change("pot", {"available": 3}) == Item("pot", "A pot", 3, version=2)
    assert await stock.change("pan", {"available": 3}) is None
    assert await stock.remove("pot")
    assert not await stock.remove("pot")


async def test_whatever_changes_an_item_makes_another_version(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    one = frozenset({1})
    await reservations.hold("r1", [Line("pot", 2)], NOW)
    with pytest.raises(PreconditionFailed):
        await stock.change("pot", {"available": 3}, expected=one)
    await reservations.release("r1", NOW)
    assert await stock.find("pot") == Item("pot", "A pot", 10, version=3)
    assert await stock.change("pot", {"available": 3}, expected=frozenset({2, 3})) == Item("pot", "A pot", 3, version=4)
    with pytest.raises(PreconditionFailed):
        await stock.remove("pot", expected=one)
    with pytest.raises(PreconditionFailed):
        await logic.change("pot", {}, stock, expected=one)
    assert not await stock.remove("pan", expected=one)
    assert await stock.remove("pot", expected=frozenset({4}))


async def test_an_item_that_comes_back_is_not_taken_for_the_old_one(stock: StockRepository) -> None:
    await stock.add(logic.new_item("jug", "A jug", 1, NOW))
    old = await logic.read("jug", stock)
    await stock.remove("jug")
    await stock.add(logic.new_item("jug", "Another jug", 1, NOW + timedelta(seconds=1)))
    with pytest.raises(PreconditionFailed):
        await stock.change("jug", {"available": 3}, expected=frozenset({old.version}))


async def test_items_are_listed_by_their_bytes_on_every_database(stock: StockRepository) -> None:
    for sku in ("a-z", "ab", "a.c", "a_b", "a1"):
        await stock.add(Item(sku, sku, 1))
    found, cursor = [], None
    while True:
        page = await stock.page(limit=3, cursor=cursor)
        found += [item.sku for item in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert found == sorted(found)
    assert len(found) == 8


async def test_a_reservation_takes_all_of_its_lines(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    held = await reservations.hold("r1", [Line("pot", 2), Line("cup", 10)], NOW)
    assert held == Reservation("r1", State.HELD, NOW, (Line("cup", 10), Line("pot", 2)))
    assert await reservations.find("r1") == held
    assert await left(stock) == {"cup": 0, "pot": 8, "tea": 0}


@pytest.mark.parametrize("scarce", [Line("tea", 1), Line("cup", 11)])
async def test_a_reservation_that_cannot_have_all_takes_nothing(
    scarce: Line, stock: StockRepository, reservations: ReservationRepository
) -> None:
    with pytest.raises(OutOfStock) as caught:
        await reservations.hold("r1", [Line("pot", 2), scarce], NOW)
    assert caught.value.extensions["skus"] == [scarce.sku]
    assert caught.value.extensions["shortages"][0]["requested"] == scarce.quantity
    assert await left(stock) == {"cup": 10, "pot": 10, "tea": 0}
    assert await reservations.find("r1") is None


async def test_unknown_items_are_named_by_their_place(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    lines = [Line("pot", 2), Line("x", 1), Line("tea", 1), Line("a", 1)]
    with pytest.raises(UnknownItems):
        await reservations.hold("r1", lines, NOW)
    with pytest.raises(InvalidInput) as caught:
        await logic.reserve("r1", lines, reservations, now=NOW)
    assert [e["path"] for e in caught.value.extensions["errors"]] == ["body.items.1.sku", "body.items.3.sku"]
    assert await left(stock) == {"cup": 10, "pot": 10, "tea": 0}


async def test_repeating_a_reservation_changes_nothing(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    lines = [Line("pot", 2), Line("cup", 1)]
    first, new = await logic.reserve("r1", lines, reservations, now=NOW)
    again, newer = await logic.reserve("r1", lines[::-1], reservations, now=NOW)
    assert (first, new, newer) == (again, True, False)
    assert (await left(stock))["pot"] == 8


async def test_a_reference_stands_for_the_same_items_only(reservations: ReservationRepository) -> None:
    await logic.reserve("r1", [Line("pot", 2)], reservations, now=NOW)
    for other in ([Line("pot", 3)], [Line("cup", 2)], [Line("pot", 2), Line("cup", 1)]):
        with pytest.raises(ReferenceUsed):
            await logic.reserve("r1", other, reservations, now=NOW)


async def test_releasing_gives_back_once(stock: StockRepository, reservations: ReservationRepository) -> None:
    await reservations.hold("r1", [Line("pot", 2), Line("cup", 1)], NOW)
    for _ in range(3):
        await reservations.release("r1", NOW)
    assert await left(stock) == {"cup": 10, "pot": 10, "tea": 0}
    assert await reservations.find("r1") == Reservation("r1", State.RELEASED, NOW, ())


async def test_a_released_reference_cannot_be_reserved_again(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    await reservations.hold("r1", [Line("pot", 2)], NOW)
    await reservations.release("r1", NOW)
    await reservations.release("never-reserved", NOW)
    for reference in ("r1", "never-reserved"):
        with pytest.raises(ReferenceUsed):
            await logic.reserve(reference, [Line("pot", 2)], reservations, now=NOW)
    assert (await left(stock))["pot"] == 10


async def test_an_item_stays_while_some_of_it_is_reserved(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    await reservations.hold("r1", [Line("pot", 2)], NOW)
    with pytest.raises(ItemReserved):
        await stock.remove("pot")
    await reservations.release("r1", NOW)
    assert await stock.remove("pot")


async def test_of_fifty_who_want_the_last_ten_exactly_ten_get_one(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    wishes = [reservations.hold(f"r{n}", [Line("pot", 1)], NOW) for n in range(50)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(result, Reservation) for result in results) == 10
    assert sum(isinstance(result, OutOfStock) for result in results) == 40
    assert (await left(stock))["pot"] == 0


async def test_reservations_of_several_items_in_any_order_do_not_lock_each_other_out(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    pairs = [[Line("pot", 1), Line("cup", 1)], [Line("cup", 1), Line("pot", 1)]]
    wishes = [reservations.hold(f"r{n}", pairs[n % 2], NOW) for n in range(20)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(result, Reservation) for result in results) == 10
    assert await left(stock) == {"cup": 0, "pot": 0, "tea": 0}
    await asyncio.gather(*(reservations.release(f"r{n}", NOW) for n in range(20)))
    assert await left(stock) == {"cup": 10, "pot": 10, "tea": 0}


async def test_one_reference_reserved_many_times_at_once_is_taken_once(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    line = [Line("pot", 3)]
    results = await asyncio.gather(*(logic.reserve("r1", line, reservations, now=NOW) for _ in range(10)))
    assert sum(new for _, new in results) == 1
    assert (await left(stock))["pot"] == 7


async def test_a_reservation_and_its_release_at_once_leave_no_stock_behind(
    stock: StockRepository, reservations: ReservationRepository
) -> None:
    both = [
        f
        for n in range(15)
        for f in (reservations.hold(f"r{n}", [Line("pot", 1)], NOW), reservations.release(f"r{n}", NOW))
    ]
    results = await asyncio.gather(*both, return_exceptions=True)
    assert all(r is None or isinstance(r, bool | Reservation | OutOfStock) for r in results), results
    await asyncio.gather(*(reservations.release(f"r{n}", NOW) for n in range(15)))
    assert (await left(stock))["pot"] == 10


async def test_demo_items_are_put_into_an_empty_database_only(migrated: Migrate) -> None:
    database = await migrated("inventory")
    await asyncio.gather(*(demo.seed(database, settings.load()) for _ in range(3)))
    items = (await StockRepository(database).page(limit=100, cursor=None)).items
    assert tuple(items) == demo.GOODS
    assert [item.sku for item in items if item.available == 0] == ["tea-gyokuro"]
