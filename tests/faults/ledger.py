"""What the databases of orders and inventory say when all is over: every piece of stock is somewhere, and in one place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

Line = tuple[str, str, int]

_ENDS = frozenset({"confirmed", "rejected", "cancelled"})


@dataclass(frozen=True, slots=True)
class Ledger:
    """A reading of both databases.

    Args:
        orders: id → reference and state.
        ordered, reserved: reference, article and quantity of each line.
        held: the references of what is reserved.
        available: article → pieces.
        waiting: events that are due and not sent, of both.
    """

    orders: Mapping[int, tuple[str, str]]
    ordered: Sequence[Line]
    held: frozenset[str]
    reserved: Sequence[Line]
    available: Mapping[str, int]
    waiting: int

    def states(self) -> Counter[str]:
        return Counter(state for _, state in self.orders.values())

    def wrong(
        self, *, placed: Mapping[int, int], refused: int, cancelled: frozenset[int], stock: Mapping[str, int]
    ) -> list[str]:
        """What does not balance.

        Args:
            placed: number → id of every order that was answered.
            refused: how many more were answered with their rejection.
            cancelled: ids whose cancellation was answered.
            stock: article → pieces at the beginning.
        """
        return [*self._orders_wrong(placed, refused, cancelled), *self._stock_wrong(stock)]

    def _orders_wrong(self, placed: Mapping[int, int], refused: int, cancelled: frozenset[int]) -> Iterator[str]:
        answered = set(placed.values())
        others = [state for number, (_, state) in self.orders.items() if number not in answered]
        if len(self.orders) != len(placed) + refused or others != ["rejected"] * refused:
            yield f"{len(placed)} orders and {refused} rejections were answered, {len(self.orders)} orders are there"
        if stuck := {state: n for state, n in self.states().items() if state not in _ENDS}:
            yield f"not at an end: {stuck}"
        if living := [n for n in cancelled if self.orders[n][1] == "confirmed"]:
            yield f"{len(living)} orders were cancelled and are confirmed"

    def _stock_wrong(self, stock: Mapping[str, int]) -> Iterator[str]:
        confirmed = {reference for reference, state in self.orders.values() if state == "confirmed"}
        if confirmed != self.held:
            lack, vain = len(confirmed - self.held), len(self.held - confirmed)
            yield f"{lack} orders lack their stock, {vain} reservations are held in vain"
        due = sorted(line for line in self.ordered if line[0] in confirmed)
        if sorted(self.reserved) != due:
            yield "the reservations are not those of the orders"
        sold = Counter[str]()
        for _, sku, quantity in due:
            sold[sku] += quantity
        for sku, pieces in stock.items():
            if self.available[sku] + sold[sku] != pieces:
                yield f"{sku}: {pieces} at first, {self.available[sku]} left, {sold[sku]} sold"


def read(orders_url: str, inventory_url: str) -> Ledger:
    """Read both, in a thread and an event loop of its own."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, _read(orders_url, inventory_url)).result()


async def _read(orders_url: str, inventory_url: str) -> Ledger:
    ours, theirs = await _rows(orders_url, _ORDERS, "orders"), await _rows(inventory_url, _INVENTORY, "inventory")
    return Ledger(
        orders={number: (reference, state) for number, reference, state in ours["orders"]},
        ordered=[(reference, sku, quantity) for reference, sku, quantity in ours["lines"]],
        held=frozenset(reference for (reference,) in theirs["held"]),
        reserved=[(reference, sku, quantity) for reference, sku, quantity in theirs["lines"]],
        available=dict(theirs["stock"]),
        waiting=ours["waiting"][0][0] + theirs["waiting"][0][0],
    )


_WAITING = "SELECT COUNT(*) FROM {service}_outbox WHERE batch = 0 AND type NOT LIKE '%.overdue'"
_ORDERS = {
    "orders": "SELECT id, reference, state FROM orders",
    "lines": "SELECT reference, sku, quantity FROM order_lines JOIN orders ON orders.id = order_id",
    "waiting": _WAITING,
}
_INVENTORY = {
    "held": "SELECT order_ref FROM inventory_reservations WHERE state = 'held'",
    "lines": "SELECT order_ref, sku, quantity FROM inventory_reservation_lines",
    "stock": "SELECT sku, available FROM inventory_items",
    "waiting": _WAITING,
}


async def _rows(url: str, queries: Mapping[str, str], service: str) -> dict[str, list[Any]]:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            return {
                name: [tuple(row) for row in await connection.execute(text(query.format(service=service)))]
                for name, query in queries.items()
            }
    finally:
        await engine.dispose()
