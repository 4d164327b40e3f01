"""Every query of orders; each method is one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, Duplicate, changes, pagination, versions
from app.data.pagination import Page
from app.data.versions import Expected
from app.errors import IdempotencyKeyReused
from app.services.orders.logic import UNSETTLED, VISIBLE, Draft, Line, Order, State
from app.services.orders.models import lines, orders


class OrderRepository:
    """The orders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, order_id: int) -> Order | None:
        found = await self._read(select(orders).where(orders.c.id == order_id))
        return found[0] if found else None

    async def owner(self, order_id: int) -> int | None:
        """The id of the user whose order it is; None if there is no such order."""
        async with self._database.reading() as session:
            found: int | None = await session.scalar(select(orders.c.user_id).where(orders.c.id == order_id))
        return found

    async def page(self, *, limit: int, cursor: str | None, user_id: int | None) -> Page[Order]:
        """The visible orders after `cursor`, by id, of one user or of all. Raises InvalidInput for a malformed cursor."""
        query = select(orders).where(orders.c.id > pagination.after_id(cursor), orders.c.state.in_(VISIBLE))
        if user_id is not None:
            query = query.where(orders.c.user_id == user_id)
        found = await self._read(query.order_by(orders.c.id).limit(limit + 1))
        return pagination.cut(found, limit, lambda order: order.id)

    async def unsettled(self, *, before: datetime, limit: int) -> Sequence[Order]:
        """The oldest orders that were left half-way, created before `before`."""
        left = select(orders).where(orders.c.state.in_(UNSETTLED), orders.c.created_at < before)
        return await self._read(left.order_by(orders.c.created_at).limit(limit))

    async def add(self, draft: Draft) -> Order:
        """A new, pending order, or that of the same request. Raises IdempotencyKeyReused."""
        try:
            return await self._add(draft)
        except Duplicate:
            if draft.request_key is None:
                raise
            known = await self._read(select(orders).where(orders.c.request_key == draft.request_key))
            if not known:
                # Given up between our two steps: the key is free again.
                return await self._add(draft)
        if (known[0].user_id, known[0].lines) != (draft.user_id, draft.lines):
            raise IdempotencyKeyReused("With this Idempotency-Key something else was ordered")
        return known[0]

    async def _add(self, draft: Draft) -> Order:
        values = {
            "user_id": draft.user_id,
            "state": State.PENDING,
            "reference": draft.reference,
            "created_at": draft.created_at,
            "request_key": draft.request_key,
        }
        async with self._database.session() as session:
            order_id = await changes.new_id(session, insert(orders).values(values))
            await session.execute(insert(lines), [_line(order_id, *numbered) for numbered in enumerate(draft.lines)])
        return Order(order_id, draft.user_id, State.PENDING, draft.reference, draft.created_at, draft.lines)

    async def move(self, order_id: int, source: State, target: State, *, expected: Expected = None) -> bool:
        this = (orders.c.id == order_id) & (orders.c.state == source) & versions.among(orders.c.version, expected)
        new: dict[str, Any] = {"state": target, "version": orders.c.version + 1}
        if target is State.ABANDONED:
            # Nothing comes of it: the same request, come again, begins anew.
            new["request_key"] = None
        async with self._database.session() as session:
            return await changes.count(session, update(orders).where(this).values(new)) == 1

    async def remove(self, order_id: int, state: State) -> bool:
        this = (orders.c.id == order_id) & (orders.c.state == state)
        async with self._database.session() as session:
            return await changes.count(session, delete(orders).where(this)) == 1

    async def _read(self, query: Select[Any]) -> list[Order]:
        async with self._database.reading() as session:
            rows = (await session.execute(query)).all()
            contents = await _lines_of(session, [row.id for row in rows])
        return [_order(row, contents[row.id]) for row in rows]


def _order(row: Row[Any], contents: Sequence[Line]) -> Order:
    state = State(row.state)
    return Order(row.id, row.user_id, state, row.reference, row.created_at, tuple(contents), row.version)


async def _lines_of(session: AsyncSession, order_ids: Sequence[int]) -> dict[int, list[Line]]:
    contents: dict[int, list[Line]] = defaultdict(list)
    if order_ids:
        query = select(lines.c.order_id, lines.c.sku, lines.c.quantity).where(lines.c.order_id.in_(order_ids))
        for order_id, sku, quantity in await session.execute(query.order_by(lines.c.order_id, lines.c.position)):
            contents[order_id].append(Line(sku, quantity))
    return contents


def _line(order_id: int, position: int, line: Line) -> dict[str, int | str]:
    return {"order_id": order_id, "position": position, "sku": line.sku, "quantity": line.quantity}
