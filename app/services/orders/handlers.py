"""What becomes of an order when the inventory has answered, or has not. Each may come twice, late, or out of turn."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from app.events import Handlers
from app.services.orders import repository
from app.services.orders.events import OrderOverdue, StockRefused, StockReserved
from app.services.orders.logic import GIVEN_UP, Rejection, State

handlers = Handlers()


@handlers.on(StockReserved)
async def confirm(reserved: StockReserved, session: AsyncSession) -> None:
    """An order that was given up or cancelled meanwhile stays so: the inventory has been told, and releases it."""
    await repository.move(session, reserved.reference, State.CONFIRMED)


@handlers.on(StockRefused)
async def reject(refused: StockRefused, session: AsyncSession) -> None:
    shortages = tuple(shortage.model_dump() for shortage in refused.shortages)
    rejection = Rejection(refused.code, refused.detail, refused.skus, shortages)
    await repository.move(session, refused.reference, State.REJECTED, rejection)


@handlers.on(OrderOverdue)
async def give_up(overdue: OrderOverdue, session: AsyncSession) -> None:
    await repository.move(session, overdue.reference, State.REJECTED, GIVEN_UP)
