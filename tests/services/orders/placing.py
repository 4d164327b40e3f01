"""Orders in a database of their own, without a service around it."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database
from app.events import Event
from app.services.orders import logic
from app.services.orders.logic import Draft, Line, Order, Policy
from app.services.orders.repository import OrderRepository

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
POLICY = Policy(timeout=timedelta(minutes=1))

Handler = Callable[[Any, AsyncSession], Awaitable[None]]

_serial = itertools.count()


class Users:
    """There is one."""

    async def exists(self, user_id: int) -> bool:
        return user_id == 7


def draft(*lines: Line, user_id: int = 7, key: str | None = None) -> Draft:
    return Draft(user_id, lines or (Line("sencha", 3), Line("assam", 2)), f"ref-{next(_serial)}", NOW, key)


async def place(orders: OrderRepository, *lines: Line, key: str | None = None) -> Order:
    return await logic.place(draft(*lines, key=key), POLICY, Users(), orders)


async def handle(database: Database, handler: Handler, event: Event) -> None:
    """As the desk does it, but for the inbox: whatever comes twice has its effect twice, if the handler lets it."""
    await database.transact(lambda session: handler(event, session))
