"""How an order is placed and cancelled, so that a crash between any two steps loses no stock and no order.

              place                        cancel
    pending ────────► confirmed ──► cancelling ──► cancelled
       │ │
       │ └─ the inventory refuses ──────────────────────────► (gone)
       └─ it failed half-way ──► abandoned ─────────────────► (gone)

An order is written down, as pending, before its stock is reserved under the order's own reference: whatever happens
afterwards, somebody knows what may have to be given back. Stock is given back only for an order that can no longer be
confirmed (abandoned, cancelling), and every step may be repeated, so `settle` can finish what any process has left.
Clients see an order from its confirmation on. No transaction is open while a peer is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from app.data import versions
from app.data.versions import Expected
from app.errors import Conflict, InvalidInput, NotFound, PlatformError, Unavailable


class State(StrEnum):
    PENDING = "pending"
    CONFIRMED = "confirmed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


VISIBLE = (State.CONFIRMED, State.CANCELLING, State.CANCELLED)
UNSETTLED = (State.PENDING, State.ABANDONED, State.CANCELLING)


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Draft:
    """An order that is to be; `reference` is unique for all time, also across databases that were set up anew.

    `request_key` is the same whenever the same request comes again, and nobody else's; None if it says nothing of that.
    """

    user_id: int
    lines: tuple[Line, ...]
    reference: str
    created_at: datetime
    request_key: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """`version` counts the changes."""

    id: int
    user_id: int
    state: State
    reference: str
    created_at: datetime
    lines: tuple[Line, ...]
    version: int = 1


class OutOfStock(Conflict):
    """The inventory has too little; the extensions say of what."""

    code, title = "out_of_stock", "Out of stock"


class UnknownItems(InvalidInput):
    """The inventory has no such items; `errors` names the lines."""

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("Some items do not exist", errors=errors)


class Users(Protocol):
    async def exists(self, user_id: int) -> bool: ...


class Inventory(Protocol):
    """The stock; both methods may be repeated with the same reference."""

    async def reserve(self, reference: str, lines: Sequence[Line]) -> None:
        """Reserve all or nothing.

        Raises OutOfStock or UnknownItems if it refuses and holds nothing. After any other error it may hold it.
        """
        ...

    async def release(self, reference: str) -> None: ...


class Orders(Protocol):
    """Where orders are kept; each method is one transaction."""

    async def add(self, draft: Draft) -> Order:
        """A new, pending order; or the one, in whatever state, that this very request has placed before.

        Raises IdempotencyKeyReused if that is for something else. An order that is abandoned counts no more.
        """
        ...

    async def find(self, order_id: int) -> Order | None: ...

    async def move(self, order_id: int, source: State, target: State, *, expected: Expected = None) -> bool:
        """From one state to another; False, and nothing, if it is not in `source` or its version not `expected`."""
        ...

    async def remove(self, order_id: int, state: State) -> bool:
        """Forget an order; False, and nothing, if it is not in `state`."""
        ...


async def place(draft: Draft, users: Users, orders: Orders, inventory: Inventory) -> Order:
    """Check the user, write the order down, reserve its stock, confirm it; where that was done before, go on from there.

    Raises:
        InvalidInput: the user or an item does not exist; the paths are those of the request.
        OutOfStock: nothing is reserved, nothing is ordered.
        Unavailable: a peer or the database is away; what was done is undone, now or by `settle` later.
    """
    if not await users.exists(draft.user_id):
        problem = {"path": "body.user_id", "message": f"there is no user {draft.user_id}", "type": "unknown_user"}
        raise InvalidInput("The user does not exist", errors=[problem])
    order = await orders.add(draft)
    if order.state in VISIBLE:
        return order
    try:
        return await _confirm(order, orders, inventory)
    except (OutOfStock, UnknownItems):
        with suppress(PlatformError):
            await orders.remove(order.id, State.PENDING)
        raise
    except PlatformError:
        # If this fails, too, the order stays written down, and is settled later.
        with suppress(PlatformError):
            await settle(order, orders, inventory)
        raise


async def _confirm(order: Order, orders: Orders, inventory: Inventory) -> Order:
    await inventory.reserve(order.reference, order.lines)
    if await orders.move(order.id, State.PENDING, State.CONFIRMED):
        return replace(order, state=State.CONFIRMED, version=order.version + 1)
    found = await orders.find(order.id)
    if found is not None and found.state in VISIBLE:
        # The same request, come again, was faster.
        return found
    # It took so long that somebody else has settled it.
    raise Unavailable("The order took too long and was given up", retry_after=1.0)


async def read(order_id: int, orders: Orders) -> Order:
    order = await orders.find(order_id)
    if order is None or order.state not in VISIBLE:
        raise NotFound(f"There is no order {order_id}")
    return order


async def cancel(order_id: int, orders: Orders, inventory: Inventory, *, expected: Expected = None) -> Order:
    """Give the stock of an order back; a cancelled order stays as it is.

    Raises:
        NotFound: there is no such order.
        PreconditionFailed: its version is none of `expected`.
        Unavailable: the inventory is away; the order is being cancelled, and repeating this or `settle` finishes it.
    """
    order = await read(order_id, orders)
    if await orders.move(order.id, State.CONFIRMED, State.CANCELLING, expected=expected):
        order = replace(order, state=State.CANCELLING)
    else:
        # Another call was faster, which comes to the same, unless the version matters.
        order = await read(order_id, orders)
        versions.check(order.version, expected)
    if order.state is State.CANCELLING:
        await settle(order, orders, inventory)
    return await read(order_id, orders)


async def settle(order: Order, orders: Orders, inventory: Inventory) -> None:
    """Finish what was left half-way, as `order` was read: give its stock back, then forget or cancel it."""
    if order.state is State.PENDING and not await orders.move(order.id, State.PENDING, State.ABANDONED):
        # It was confirmed meanwhile, or is being settled elsewhere.
        return
    await inventory.release(order.reference)
    if order.state is State.CANCELLING:
        await orders.move(order.id, State.CANCELLING, State.CANCELLED)
        return
    await orders.remove(order.id, State.ABANDONED)
