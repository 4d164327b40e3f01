"""How an order comes to its end. No transaction reaches beyond one service: each step is one, and its event brings the next.

       place                   inventory.reserved
    ──────────► pending ───────────────────────────► confirmed
      placed,     │ │                                    │
      overdue     │ └───────── cancel ──────────┬────────┘
      in a minute │                             ▼
                  │                         cancelled ──► the inventory releases
                  │ inventory.refused
                  └ overdue ──────────────► rejected ───► the inventory releases

A step that comes twice, or too late, finds the order in another state and changes nothing. Whoever ends an order that may
have been reserved says so, and the inventory lets no reservation through that comes after its release. So stock is held for
an order that is confirmed, or will be, and for no other. Events of one order are in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from app.data import versions
from app.data.versions import Expected
from app.errors import Conflict, InvalidInput, NotFound, PlatformError, Unavailable


class State(StrEnum):
    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    # Of processes before the events, which may run beside us during an update: see revision 0003.
    CANCELLING = "cancelling"
    ABANDONED = "abandoned"


# From where an order comes into a state; from anywhere else it does not.
SOURCES: Mapping[State, frozenset[State]] = {
    State.CONFIRMED: frozenset({State.PENDING}),
    State.REJECTED: frozenset({State.PENDING, State.ABANDONED}),
    State.CANCELLED: frozenset({State.PENDING, State.CONFIRMED, State.CANCELLING}),
}


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Policy:
    """An order that the inventory has not answered after `timeout` is given up."""

    timeout: timedelta


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
class Rejection:
    """Why nothing came of an order: `code` is the inventory's, or ``timeout``; `skus` are those that were the trouble."""

    code: str
    detail: str = ""
    skus: tuple[str, ...] = ()
    shortages: tuple[Mapping[str, Any], ...] = ()


GIVEN_UP = Rejection("timeout", "The order took too long and was given up")


@dataclass(frozen=True, slots=True)
class Order:
    """`version` counts the changes."""

    id: int
    user_id: int
    state: State
    reference: str
    created_at: datetime
    lines: tuple[Line, ...]
    rejection: Rejection | None = None
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


class Orders(Protocol):
    """Where orders are kept; each method is one transaction."""

    async def add(self, draft: Draft, policy: Policy) -> Order:
        """Write a pending order, and say so, now and when it is overdue; or return the one of this very request.

        One that took too long counts no more.
        """
        ...

    async def find(self, order_id: int) -> Order | None: ...

    async def cancel(self, order_id: int, *, expected: Expected = None) -> bool:
        """Cancel it, and say so; False, and nothing, if it is in no state for that, or its version not `expected`."""
        ...


async def place(draft: Draft, policy: Policy, users: Users, orders: Orders) -> Order:
    """Check the user and write the order down; it is pending until the inventory has answered.

    The same request, come again, finds the order that it has placed, as it is by then.

    Raises:
        InvalidInput: the user does not exist.
        Unavailable: users or the database are away; nothing was ordered.
    """
    if not await users.exists(draft.user_id):
        problem = {"path": "body.user_id", "message": f"there is no user {draft.user_id}", "type": "unknown_user"}
        raise InvalidInput("The user does not exist", errors=[problem])
    return await orders.add(draft, policy)


async def read(order_id: int, orders: Orders) -> Order:
    order = await orders.find(order_id)
    if order is None:
        raise NotFound(f"There is no order {order_id}")
    return order


async def cancel(order_id: int, orders: Orders, *, expected: Expected = None) -> Order:
    """Cancel an order that is pending or confirmed; a cancelled one stays as it is. Its stock is released soon after.

    Raises:
        NotFound: there is no such order.
        PreconditionFailed: its version is none of `expected`.
        Conflict: nothing has come of it anyway.
    """
    cancelled = await orders.cancel(order_id, expected=expected)
    order = await read(order_id, orders)
    if not cancelled:
        versions.check(order.version, expected)
    if order.state is State.REJECTED:
        raise Conflict(f"The order {order_id} was rejected: there is nothing to cancel")
    return order


def refusal(order: Order) -> PlatformError | None:
    """What to tell who has placed `order`, if nothing came of it; the paths are those of the request."""
    found = order.rejection
    if order.state is not State.REJECTED or found is None:
        return None
    match found.code:
        case "out_of_stock":
            return OutOfStock(found.detail, extensions={"skus": found.skus, "shortages": found.shortages})
        case "unknown_items":
            return UnknownItems(_faults(order.lines, found.skus))
        case GIVEN_UP.code:
            return Unavailable(found.detail, retry_after=1.0)
        case _:
            return Conflict(found.detail)


def _faults(lines: Sequence[Line], unknown: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"path": f"body.items.{index}.sku", "message": f"there is no item {line.sku}", "type": "unknown_sku"}
        for index, line in enumerate(lines)
        if line.sku in unknown
    ]
