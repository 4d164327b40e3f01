"""Every query of orders; each method is one transaction, and what it changes is told in the same one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, Duplicate, changes, pagination, versions
from app.data.pagination import Page
from app.data.versions import Expected
from app.events import Event
from app.services.orders import events
from app.services.orders.events import OrderCancelled, OrderConfirmed, OrderOverdue, OrderPlaced, OrderRejected, outbox
from app.services.orders.logic import GIVEN_UP, SOURCES, Draft, Line, Order, Policy, Rejection, State
from app.services.orders.models import lines, orders


class OrderRepository:
    """The orders of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, order_id: int) -> Order | None:
        found = await self._read(select(orders).where(orders.c.id == order_id), fresh=True)
        return found[0] if found else None

    async def owner(self, order_id: int) -> int | None:
        """The id of the user whose order it is; None if there is no such order."""
        query = select(orders.c.user_id).where(orders.c.id == order_id)
        found: int | None = await self._database.read(lambda session: session.scalar(query), fresh=True)
        return found

    async def page(self, *, limit: int, cursor: str | None, user_id: int | None) -> Page[Order]:
        """The orders after `cursor`, by id, of one user or of all. Raises InvalidInput for a malformed cursor."""
        query = select(orders).where(orders.c.id > pagination.after_id(cursor))
        if user_id is not None:
            query = query.where(orders.c.user_id == user_id)
        found = await self._read(query.order_by(orders.c.id).limit(limit + 1))
        return pagination.cut(found, limit, lambda order: order.id)

    async def add(self, draft: Draft, policy: Policy) -> Order:
        """Write a pending order and say so, now and when it is overdue; or return that of the same request."""
        try:
            return await self._add(draft, policy)
        except Duplicate:
            if draft.request_key is None:
                raise
            known = await self._read(select(orders).where(orders.c.request_key == draft.request_key), fresh=True)
            # Without: given up between our two steps, so that the key is free again.
            return known[0] if known else await self._add(draft, policy)

    async def _add(self, draft: Draft, policy: Policy) -> Order:
        order_id = await self._database.transact(partial(_add, draft=draft, policy=policy))
        return Order(order_id, draft.user_id, State.PENDING, draft.reference, draft.created_at, draft.lines)

    async def cancel(self, order_id: int, *, expected: Expected = None) -> bool:
        """Cancel it, and say so; False, and nothing, if it is in no state for that, or its version not `expected`."""
        this, among = orders.c.id == order_id, versions.among(orders.c.version, expected)
        return await self._database.transact(lambda session: _move(session, this, State.CANCELLED, only=among))

    async def _read(self, query: Select[Any], *, fresh: bool = False) -> list[Order]:
        async def work(session: AsyncSession) -> tuple[Sequence[Row[Any]], dict[int, list[Line]]]:
            rows = (await session.execute(query)).all()
            return rows, await _lines_of(session, [row.id for row in rows])

        # Somebody who has placed an order must find it, and who changes one must know how it stands.
        rows, contents = await self._database.read(work, fresh=fresh)
        return [_order(row, contents[row.id]) for row in rows]


async def move(session: AsyncSession, reference: str, target: State, rejection: Rejection | None = None) -> bool:
    """Bring an order into another state, and say so; False, and nothing, if it is in no state for that."""
    return await _move(session, orders.c.reference == reference, target, rejection)


async def _move(
    session: AsyncSession,
    this: ColumnElement[bool],
    target: State,
    rejection: Rejection | None = None,
    *,
    only: ColumnElement[bool] | None = None,
) -> bool:
    # The state stands in the condition: whoever else wants to move it waits here, and then finds it moved.
    fits = this & orders.c.state.in_(SOURCES[target]) & (true() if only is None else only)
    new: dict[str, Any] = {"state": target, "version": orders.c.version + 1}
    if rejection is not None:
        new["rejection"] = asdict(rejection)
    if rejection == GIVEN_UP:
        # That it took too long may be mended by trying again: the same request, come again, begins anew.
        new["request_key"] = None
    if not await changes.count(session, update(orders).where(fits).values(new)):
        return False
    row = (await session.execute(select(orders).where(this))).one()
    if row.overdue_event is not None:
        await outbox.withdraw(session, row.overdue_event)
    await outbox.publish(session, _news(row, target, rejection))
    return True


def _news(row: Row[Any], state: State, rejection: Rejection | None) -> Event:
    if state is State.CONFIRMED:
        return OrderConfirmed(reference=row.reference, order_id=row.id, user_id=row.user_id)
    if rejection is not None:
        return OrderRejected(reference=row.reference, order_id=row.id, user_id=row.user_id, code=rejection.code)
    return OrderCancelled(reference=row.reference, order_id=row.id, user_id=row.user_id)


async def _add(session: AsyncSession, draft: Draft, policy: Policy) -> int:
    overdue = await outbox.publish(session, OrderOverdue(reference=draft.reference), at=policy.timeout)
    values = {
        "user_id": draft.user_id,
        "state": State.PENDING,
        "reference": draft.reference,
        "created_at": draft.created_at,
        "request_key": draft.request_key,
        "overdue_event": overdue,
    }
    order_id = await changes.new_id(session, insert(orders).values(values))
    await session.execute(insert(lines), [_line(order_id, *numbered) for numbered in enumerate(draft.lines)])
    ordered = tuple(events.Line(sku=line.sku, quantity=line.quantity) for line in draft.lines)
    placed = OrderPlaced(reference=draft.reference, order_id=order_id, user_id=draft.user_id, lines=ordered)
    await outbox.publish(session, placed)
    return order_id


async def _lines_of(session: AsyncSession, order_ids: Sequence[int]) -> dict[int, list[Line]]:
    contents: dict[int, list[Line]] = defaultdict(list)
    if order_ids:
        query = select(lines.c.order_id, lines.c.sku, lines.c.quantity).where(lines.c.order_id.in_(order_ids))
        for order_id, sku, quantity in await session.execute(query.order_by(lines.c.order_id, lines.c.position)):
            contents[order_id].append(Line(sku, quantity))
    return contents


def _order(row: Row[Any], contents: Sequence[Line]) -> Order:
    return Order(
        row.id, row.user_id, State(row.state), row.reference, row.created_at, tuple(contents),
        _rejection(row.rejection), row.version,
    )  # fmt: skip


def _rejection(kept: dict[str, Any] | None) -> Rejection | None:
    """As it was written, where JSON has no tuples."""
    if kept is None:
        return None
    return Rejection(**{**kept, "skus": tuple(kept["skus"]), "shortages": tuple(kept["shortages"])})


def _line(order_id: int, position: int, line: Line) -> dict[str, int | str]:
    return {"order_id": order_id, "position": position, "sku": line.sku, "quantity": line.quantity}
