"""The rules of the stock. A reservation takes all of its lines or none; its reference says it once only:

    (unknown) ──reserve──► held ──release──► released
        └──────────────release─────────────────┘

Reserving a held reference again, for the same items, changes nothing; for other items it is a conflict. A released
reference stays released, even one that was released before it was ever reserved: a reservation that arrives late, after
its sender has given up and released it, must not take stock that nobody will give back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from app.data import versions
from app.data.versions import Expected
from app.errors import Conflict, InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class Item:
    """`available` is what can still be reserved, in pieces; `version` counts the changes, also those of the stock."""

    sku: str
    name: str
    available: int
    version: int = 1


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    quantity: int


class State(StrEnum):
    HELD = "held"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Reservation:
    """`lines` are ordered by sku; a released reservation has none."""

    order_ref: str
    state: State
    created_at: datetime
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Shortage:
    sku: str
    requested: int
    available: int


class SkuTaken(Conflict):
    """There is an item with this sku already."""

    code, title = "sku_taken", "SKU taken"


class ItemReserved(Conflict):
    """An item cannot go while some of it is reserved."""

    code, title = "item_reserved", "Item reserved"


class OutOfStock(Conflict):
    """Less is available than was asked for; the extensions ``skus`` and ``shortages`` say of what."""

    code, title = "out_of_stock", "Out of stock"

    def __init__(self, shortages: Sequence[Shortage]) -> None:
        skus = [short.sku for short in shortages]
        details = [{"sku": s.sku, "requested": s.requested, "available": s.available} for s in shortages]
        super().__init__(f"Out of stock: {', '.join(skus)}", extensions={"skus": skus, "shortages": details})


class ReferenceUsed(Conflict):
    """The reference belongs to another reservation, or to one that was released."""

    code, title = "reference_used", "Reference used"


class UnknownItems(Exception):
    """Some skus of a reservation do not exist."""

    def __init__(self, skus: Sequence[str]) -> None:
        super().__init__(", ".join(skus))
        self.skus = frozenset(skus)


class Stock(Protocol):
    """Where items are kept. `add` raises SkuTaken, `remove` ItemReserved.

    What a request has added, `add` returns when it comes again: `request_key` is its name, and no other's.
    `change` and `remove` raise PreconditionFailed if the item's version is none of `expected`.
    """

    async def find(self, sku: str) -> Item | None: ...
    async def add(self, item: Item, *, request_key: str | None = None) -> Item: ...
    async def change(self, sku: str, new: Mapping[str, str | int], *, expected: Expected = None) -> Item | None: ...
    async def remove(self, sku: str, *, expected: Expected = None) -> bool: ...


class Reservations(Protocol):
    """Where reservations are kept."""

    async def find(self, order_ref: str) -> Reservation | None: ...

    async def hold(self, order_ref: str, lines: Sequence[Line], now: datetime) -> Reservation | None:
        """Take the stock and note it, in one step; None if the reference is known.

        Raises OutOfStock and UnknownItems, and has then changed nothing.
        """
        ...

    async def release(self, order_ref: str, now: datetime) -> bool:
        """Give the stock back and note it, in one step; False, and nothing, if that was done before."""
        ...


async def read(sku: str, stock: Stock) -> Item:
    return _found(sku, await stock.find(sku))


def new_item(sku: str, name: str, available: int, now: datetime) -> Item:
    """An item that is to be.

    Its versions begin where those of an earlier item with this sku, removed since, cannot have been: whoever has seen
    that one must not take it for this one.
    """
    return Item(sku, name, available, version=int(now.timestamp() * 1_000_000))


async def change(sku: str, changes: Mapping[str, str | int], stock: Stock, *, expected: Expected = None) -> Item:
    """Change what `changes` names (``name``, ``available``) and leave the rest; raises NotFound, PreconditionFailed."""
    if changes:
        return _found(sku, await stock.change(sku, changes, expected=expected))
    item = await read(sku, stock)
    versions.check(item.version, expected)
    return item


async def remove(sku: str, stock: Stock, *, expected: Expected = None) -> None:
    """Raises: NotFound, ItemReserved, PreconditionFailed."""
    if not await stock.remove(sku, expected=expected):
        raise _unknown(sku)


async def reserve(
    order_ref: str, lines: Sequence[Line], reservations: Reservations, *, now: datetime
) -> tuple[Reservation, bool]:
    """Reserve all of `lines` or nothing, and say whether this was the first time.

    Raises:
        InvalidInput: an item does not exist; the paths are those of the request's lines.
        OutOfStock: there is too little of some.
        ReferenceUsed: the reference stands for something else, or was released.
    """
    try:
        return await hold(order_ref, lines, reservations, now=now)
    except UnknownItems as unknown:
        raise _unknown_lines(lines, unknown.skus) from unknown


async def hold(
    order_ref: str, lines: Sequence[Line], reservations: Reservations, *, now: datetime
) -> tuple[Reservation, bool]:
    """As `reserve`, for whoever has no request whose paths could be named. Raises UnknownItems, OutOfStock, ReferenceUsed."""
    held = await reservations.hold(order_ref, lines, now)
    if held is not None:
        return held, True
    return _same(await read_reservation(order_ref, reservations), lines), False


async def read_reservation(order_ref: str, reservations: Reservations) -> Reservation:
    reservation = await reservations.find(order_ref)
    if reservation is None:
        raise NotFound(f"There is no reservation {order_ref}")
    return reservation


def _same(known: Reservation, lines: Sequence[Line]) -> Reservation:
    if known.state is State.RELEASED:
        raise ReferenceUsed(f"The reservation {known.order_ref} was released")
    if known.lines != in_order(lines):
        raise ReferenceUsed(f"The reservation {known.order_ref} is for other items")
    return known


def in_order(lines: Sequence[Line]) -> tuple[Line, ...]:
    """By sku: whoever takes several items takes them in this order, so that no two wait for each other."""
    return tuple(sorted(lines, key=lambda line: line.sku))


def _unknown_lines(lines: Sequence[Line], skus: frozenset[str]) -> InvalidInput:
    problems = [
        {"path": f"body.items.{index}.sku", "message": f"there is no item {line.sku}", "type": "unknown_sku"}
        for index, line in enumerate(lines)
        if line.sku in skus
    ]
    return InvalidInput("Some items do not exist", errors=problems)


def _found(sku: str, item: Item | None) -> Item:
    if item is None:
        raise _unknown(sku)
    return item


def _unknown(sku: str) -> NotFound:
    return NotFound(f"There is no item {sku}")
