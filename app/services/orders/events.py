"""What orders says, and what it reads of others: the inventory's classes are its own, these hold only what is needed here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from app.events import Event, Outbox
from app.services.orders.models import metadata


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Line(_Value):
    sku: str
    quantity: int


# --------------------------------------------------------------------------------------------------------- what it says


class OrderPlaced(Event, type="orders.placed", key="reference"):
    """Somebody has ordered something; whether there is enough of it is not known yet."""

    reference: str
    order_id: int
    user_id: int
    lines: tuple[Line, ...]


class OrderConfirmed(Event, type="orders.confirmed", key="reference"):
    """All that was ordered is reserved."""

    reference: str
    order_id: int
    user_id: int


class OrderRejected(Event, type="orders.rejected", key="reference"):
    """Nothing comes of an order: whatever is reserved for it, now or later, is to be released."""

    reference: str
    order_id: int
    user_id: int
    code: str


class OrderCancelled(Event, type="orders.cancelled", key="reference"):
    """Who has ordered does not want it any more: whatever is reserved for it, now or later, is to be released."""

    reference: str
    order_id: int
    user_id: int


class OrderOverdue(Event, type="orders.overdue", key="reference"):
    """To ourselves, later: if nobody has answered by then, the order is given up."""

    reference: str


# --------------------------------------------------------------------------------------------------------- what it reads


class StockReserved(Event, type="inventory.reserved", key="reference"):
    reference: str


class Shortage(_Value):
    sku: str
    requested: int
    available: int


class StockRefused(Event, type="inventory.refused", key="reference"):
    """Nothing is reserved; `code` says why, `skus` of what."""

    reference: str
    code: str
    detail: str = ""
    skus: tuple[str, ...] = ()
    shortages: tuple[Shortage, ...] = ()


outbox = Outbox("orders", metadata, sends=(OrderPlaced, OrderConfirmed, OrderRejected, OrderCancelled, OrderOverdue))
