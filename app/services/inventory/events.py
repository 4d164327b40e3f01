"""What the inventory says, and what it reads of others: the classes of orders are its own, these hold only what is needed here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from app.events import Event, Outbox
from app.services.inventory.models import metadata


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


# --------------------------------------------------------------------------------------------------------- what it says


class StockReserved(Event, type="inventory.reserved", key="reference"):
    """All that was ordered is held."""

    reference: str


class Shortage(_Value):
    sku: str
    requested: int
    available: int


class StockRefused(Event, type="inventory.refused", key="reference"):
    """Nothing is held; `code` says why: ``out_of_stock``, ``unknown_items`` or ``reference_used``; `skus` of what."""

    reference: str
    code: str
    detail: str
    skus: tuple[str, ...] = ()
    shortages: tuple[Shortage, ...] = ()


class StockReleased(Event, type="inventory.released", key="reference"):
    """Nothing is held any more, nor will be."""

    reference: str


# --------------------------------------------------------------------------------------------------------- what it reads


class Line(_Value):
    sku: str
    quantity: int


class OrderPlaced(Event, type="orders.placed", key="reference"):
    reference: str
    lines: tuple[Line, ...]


class OrderRejected(Event, type="orders.rejected", key="reference"):
    reference: str


class OrderCancelled(Event, type="orders.cancelled", key="reference"):
    reference: str


outbox = Outbox("inventory", metadata, sends=(StockReserved, StockRefused, StockReleased))
