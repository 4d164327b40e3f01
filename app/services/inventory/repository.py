"""Every query of the inventory; each method is one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, Duplicate, StillReferenced, changes, faults, pagination, versions
from app.data.faults import Kind
from app.data.pagination import Page
from app.data.versions import Expected
from app.services.inventory.logic import (
    Item,
    ItemReserved,
    Line,
    OutOfStock,
    Reservation,
    Shortage,
    SkuTaken,
    State,
    UnknownItems,
    in_order,
)
from app.services.inventory.models import items, lines, reservations

_item = select(items.c.sku, items.c.name, items.c.available, items.c.version)


class StockRepository:
    """The items of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, sku: str) -> Item | None:
        query = _item.where(items.c.sku == sku)
        row = (await self._database.read(lambda session: session.execute(query))).one_or_none()
        return Item(*row) if row else None

    async def page(self, *, limit: int, cursor: str | None) -> Page[Item]:
        """The items after `cursor`, by sku. Raises InvalidInput for a malformed cursor."""
        query = _item.where(items.c.sku > pagination.after_key(cursor)).order_by(items.c.sku).limit(limit + 1)
        found = [Item(*row) for row in await self._database.read(lambda session: session.execute(query))]
        return pagination.cut(found, limit, lambda item: item.sku)

    async def add(self, item: Item, *, request_key: str | None = None) -> Item:
        """Add an item; or return the one that the same request has added. Raises SkuTaken."""
        values = {**_values(item), "request_key": request_key}
        try:
            await self._database.transact(lambda session: session.execute(insert(items).values(values)))
        except Duplicate as error:
            known = None if request_key is None else await self._added_by(request_key)
            if known is None:
                raise SkuTaken(f"There is an item {item.sku} already") from error
            return known
        return item

    async def _added_by(self, request_key: str) -> Item | None:
        query = _item.where(items.c.request_key == request_key)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return Item(*row) if row else None

    async def change(self, sku: str, new: Mapping[str, str | int], *, expected: Expected = None) -> Item | None:
        """Change the columns that `new` names; None if there is no such item. Raises PreconditionFailed."""
        this = items.c.sku == sku
        new_values = {**new, "version": items.c.version + 1}
        statement = update(items).where(this, versions.among(items.c.version, expected)).values(new_values)

        async def work(session: AsyncSession) -> Item | None:
            changed = await changes.count(session, statement)
            row = (await session.execute(_item.where(this))).one_or_none()
            if not changed:
                versions.missed(expected, there=row is not None)
            return Item(*row) if changed and row else None

        return await self._database.transact(work)

    async def remove(self, sku: str, *, expected: Expected = None) -> bool:
        """Whether there was such an item. Raises ItemReserved, PreconditionFailed."""
        this = items.c.sku == sku
        statement = delete(items).where(this, versions.among(items.c.version, expected))

        async def work(session: AsyncSession) -> bool:
            if await changes.count(session, statement):
                return True
            versions.missed(expected, there=await session.scalar(select(items.c.sku).where(this)) is not None)
            return False

        try:
            return await self._database.transact(work)
        except StillReferenced as error:
            raise ItemReserved(f"Some of {sku} is reserved") from error

    async def fill(self, goods: Sequence[Item]) -> None:
        """Put `goods` into an empty table; a table with anything in it is left alone."""

        async def work(session: AsyncSession) -> None:
            if (await session.execute(select(items.c.sku).limit(1))).first() is None:
                await session.execute(insert(items), [_values(item) for item in goods])

        try:
            await self._database.transact(work)
        except Duplicate:
            # Another process was faster: all of its rows are in, and none of ours.
            return


class ReservationRepository:
    """The reservations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, order_ref: str) -> Reservation | None:
        # Who asks has just been told that the reference is known.
        return await self._database.read(lambda session: ReservationsWithin(session).find(order_ref), fresh=True)

    async def hold(self, order_ref: str, wanted: Sequence[Line], now: datetime) -> Reservation | None:
        """Take the stock and note it; None if the reference is known. Raises OutOfStock and UnknownItems."""
        reservation = Reservation(order_ref, State.HELD, now, in_order(wanted))
        try:
            await self._database.transact(lambda session: _hold(session, reservation))
        except Duplicate:
            return None
        return reservation

    async def release(self, order_ref: str, now: datetime) -> bool:
        """Give the stock back and note it, also if the reference is unknown; False if it was released before."""
        return await self._database.transact(lambda session: ReservationsWithin(session).release(order_ref, now))


class ReservationsWithin:
    """The same within a transaction that goes on afterwards: what is refused has changed nothing in it."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, order_ref: str) -> Reservation | None:
        row = (await self._session.execute(select(reservations).where(_is(order_ref)))).one_or_none()
        if row is None:
            return None
        return Reservation(row.order_ref, State(row.state), row.created_at, await _lines_of(self._session, order_ref))

    async def hold(self, order_ref: str, wanted: Sequence[Line], now: datetime) -> Reservation | None:
        reservation = Reservation(order_ref, State.HELD, now, in_order(wanted))
        if not await self._attempt(_hold(self._session, reservation)):
            return None
        return reservation

    async def release(self, order_ref: str, now: datetime) -> bool:
        # First of all the reference: a second release waits here, and then finds nothing to give back.
        if await _give_back(self._session, order_ref):
            return True
        unheard_of = _reservation(Reservation(order_ref, State.RELEASED, now, ()))
        if await self._attempt(self._session.execute(insert(reservations).values(unheard_of))):
            return True
        # Known: as released, or reserved between our two steps.
        return await _give_back(self._session, order_ref)

    async def _attempt(self, work: Awaitable[object]) -> bool:
        """Whether it was done; False, and nothing was, if the reference is known. What it raises leaves nothing either."""
        try:
            async with self._session.begin_nested():
                await work
        except IntegrityError as error:
            if faults.classify(error) is not Kind.DUPLICATE:
                raise
            return False
        return True


async def _hold(session: AsyncSession, reservation: Reservation) -> None:
    # First of all the reference: whoever comes with the same one waits here, and then finds it known.
    await session.execute(insert(reservations).values(_reservation(reservation)))
    missing = [line for line in reservation.lines if not await _take(session, line)]
    if missing:
        raise await _explain(session, missing)
    # After the stock, never before: MySQL would share-lock the items for the foreign keys, and two reservations that
    # then want to update the same item would wait for each other.
    await session.execute(insert(lines), [_line(reservation.order_ref, line) for line in reservation.lines])


async def _take(session: AsyncSession, line: Line) -> bool:
    enough = (items.c.sku == line.sku) & (items.c.available >= line.quantity)
    less = {"available": items.c.available - line.quantity, "version": items.c.version + 1}
    return await changes.count(session, update(items).where(enough).values(less)) == 1


async def _explain(session: AsyncSession, missing: Sequence[Line]) -> UnknownItems | OutOfStock:
    query = select(items.c.sku, items.c.available).where(items.c.sku.in_([line.sku for line in missing]))
    available = {row.sku: row.available for row in await session.execute(query)}
    if unknown := [line.sku for line in missing if line.sku not in available]:
        return UnknownItems(unknown)
    return OutOfStock([Shortage(line.sku, line.quantity, available[line.sku]) for line in missing])


async def _give_back(session: AsyncSession, order_ref: str) -> bool:
    """What is held under the reference, which is released then; False, and nothing, if nothing is."""
    held = _is(order_ref) & (reservations.c.state == State.HELD)
    if not await changes.count(session, update(reservations).where(held).values(state=State.RELEASED)):
        return False
    for line in await _lines_of(session, order_ref):
        more = {"available": items.c.available + line.quantity, "version": items.c.version + 1}
        await session.execute(update(items).where(items.c.sku == line.sku).values(more))
    await session.execute(delete(lines).where(lines.c.order_ref == order_ref))
    return True


async def _lines_of(session: AsyncSession, order_ref: str) -> tuple[Line, ...]:
    query = select(lines.c.sku, lines.c.quantity).where(lines.c.order_ref == order_ref).order_by(lines.c.sku)
    return tuple(Line(*row) for row in await session.execute(query))


def _is(order_ref: str) -> ColumnElement[bool]:
    return reservations.c.order_ref == order_ref


def _values(item: Item) -> dict[str, str | int]:
    return {"sku": item.sku, "name": item.name, "available": item.available, "version": item.version}


def _reservation(reservation: Reservation) -> dict[str, str | datetime]:
    return {
        "order_ref": reservation.order_ref,
        "state": reservation.state,
        "created_at": reservation.created_at,
    }


def _line(order_ref: str, line: Line) -> dict[str, str | int]:
    return {"order_ref": order_ref, "sku": line.sku, "quantity": line.quantity}
