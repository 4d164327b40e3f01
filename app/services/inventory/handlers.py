"""What the stock does about orders: all of one is reserved, or nothing; what comes to nothing is released."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.events import Handlers
from app.services.inventory import logic
from app.services.inventory.events import (
    OrderCancelled,
    OrderPlaced,
    OrderRejected,
    Shortage,
    StockRefused,
    StockReleased,
    StockReserved,
    outbox,
)
from app.services.inventory.logic import Line, OutOfStock, ReferenceUsed, UnknownItems
from app.services.inventory.repository import ReservationsWithin

handlers = Handlers()


@handlers.on(OrderPlaced)
async def reserve(placed: OrderPlaced, session: AsyncSession) -> None:
    """A refusal takes nothing, and is told in the same transaction."""
    await outbox.publish(session, await _answer(placed, session))


async def _answer(placed: OrderPlaced, session: AsyncSession) -> StockReserved | StockRefused:
    lines, reference = [Line(line.sku, line.quantity) for line in placed.lines], placed.reference
    try:
        await logic.hold(reference, lines, ReservationsWithin(session), now=datetime.now(UTC))
    except UnknownItems as error:
        detail, skus = "Some items do not exist", tuple(sorted(error.skus))
        return StockRefused(reference=reference, code="unknown_items", detail=detail, skus=skus)
    except OutOfStock as error:
        shortages = tuple(Shortage(**short) for short in error.extensions["shortages"])
        skus = tuple(error.extensions["skus"])
        return StockRefused(reference=reference, code=error.code, detail=error.detail, skus=skus, shortages=shortages)
    except ReferenceUsed as error:
        return StockRefused(reference=reference, code=error.code, detail=error.detail)
    return StockReserved(reference=reference)


@handlers.on(OrderRejected)
async def release_rejected(rejected: OrderRejected, session: AsyncSession) -> None:
    await _release(rejected.reference, session)


@handlers.on(OrderCancelled)
async def release_cancelled(cancelled: OrderCancelled, session: AsyncSession) -> None:
    await _release(cancelled.reference, session)


async def _release(reference: str, session: AsyncSession) -> None:
    """Also what was never held: a reservation that comes later must not be."""
    if await ReservationsWithin(session).release(reference, datetime.now(UTC)):
        await outbox.publish(session, StockReleased(reference=reference))
