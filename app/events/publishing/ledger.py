"""Every query of the relay: what is to be sent, what was sent, and what has been kept for long enough.

All of it asks the primary: a replica that is behind would hide what must be sent first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Table, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, changes
from app.errors import Conflict
from app.events.position import Position
from app.events.tables import EventTables


class Overtaken(Conflict):
    """Another relay has sent some of it meanwhile."""

    code, title = "relay_overtaken", "Another relay was faster"


@dataclass(frozen=True, slots=True)
class Row:
    """An event in the outbox; `batch` is 0 as long as it waits."""

    id: int
    batch: int
    slot: int
    type: str
    content: str = field(repr=False)

    @property
    def position(self) -> Position:
        return Position(self.batch, self.id)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: how many events are due, since when, and when the next one will be."""

    waiting: int
    oldest: datetime | None
    next_due: datetime | None


class Ledger:
    """The outbox of one service, as its relay sees it."""

    def __init__(self, database: Database, tables: EventTables) -> None:
        self._database, self._tables = database, tables
        outbox = tables.outbox
        self._rows = select(outbox.c.id, outbox.c.batch, outbox.c.slot, outbox.c.type, outbox.c.content)

    async def due(self, now: datetime, limit: int) -> list[Row]:
        """The first events that wait and are due, as they were written."""
        outbox = self._tables.outbox
        waiting = self._rows.where(outbox.c.batch == 0, outbox.c.due_at <= now)
        return await self._read(waiting.order_by(outbox.c.id).limit(limit))

    async def next_due(self) -> datetime | None:
        """When the first of those that wait is due; None if none waits."""
        outbox = self._tables.outbox
        async with self._database.reading(fresh=True) as session:
            found: datetime | None = await session.scalar(select(func.min(outbox.c.due_at)).where(outbox.c.batch == 0))
        return found

    async def last_batch(self) -> int:
        """The number of the last batch that any relay has made."""
        relay = self._tables.relay
        async with self._database.reading(fresh=True) as session:
            return int(await session.scalar(select(relay.c.batch)) or 0)

    async def claim(self, rows: Sequence[Row], *, last: int, batch: int) -> list[Row]:
        """Make one batch of `rows` and return them with its number.

        Args:
            last: the number of the batch before, as far as we know. What we do not know of may not be sent yet, and could
                not be sent after this one.
            batch: greater than that.

        Raises:
            Overtaken: another relay has made a batch since; nothing was changed.
        """
        await self._database.transact(lambda session: self._number(session, [row.id for row in rows], last, batch))
        return [Row(row.id, batch, row.slot, row.type, row.content) for row in rows]

    async def _number(self, session: AsyncSession, ids: Sequence[int], last: int, batch: int) -> None:
        relay, outbox = self._tables.relay, self._tables.outbox
        # First of all this row: relays take turns, so the order of the numbers is that of the commits.
        ours = update(relay).where(relay.c.batch == last).values(batch=batch)
        these = update(outbox).where(outbox.c.id.in_(ids), outbox.c.batch == 0).values(batch=batch)
        if await changes.count(session, ours) != 1 or await changes.count(session, these) != len(ids):
            raise Overtaken("Another relay has sent something meanwhile")

    async def sent_after(self, position: Position, *, partition: int, partitions: int, limit: int) -> list[Row]:
        """What was given a place behind `position` in the stream of one of so many partitions, in order."""
        outbox = self._tables.outbox
        behind = or_(outbox.c.batch > position.batch, (outbox.c.batch == position.batch) & (outbox.c.id > position.row))
        query = self._rows.where(outbox.c.batch > 0, behind, outbox.c.slot % partitions == partition)
        return await self._read(query.order_by(outbox.c.batch, outbox.c.id).limit(limit))

    async def backlog(self, now: datetime) -> Backlog:
        """How much waits."""
        outbox = self._tables.outbox
        due = select(func.count(), func.min(outbox.c.due_at)).where(outbox.c.batch == 0, outbox.c.due_at <= now)
        async with self._database.reading(fresh=True) as session:
            waiting, oldest = (await session.execute(due)).one()
        return Backlog(int(waiting), oldest, await self.next_due())

    async def purge_sent(self, *, before_batch: int, limit: int) -> int:
        """Remove events that were sent in earlier batches, the oldest first; returns how many."""
        outbox = self._tables.outbox
        old = select(outbox.c.id).where(outbox.c.batch > 0, outbox.c.batch < before_batch).order_by(outbox.c.batch)
        async with self._database.reading(fresh=True) as session:
            ids = list(await session.scalars(old.limit(limit)))
        return await self._remove(outbox, "id", ids)

    async def purge_handled(self, *, before: datetime, limit: int) -> int:
        """Forget that events were handled; returns how many."""
        inbox = self._tables.inbox
        old = select(inbox.c.event_id).where(inbox.c.handled_at < before).order_by(inbox.c.handled_at).limit(limit)
        async with self._database.reading(fresh=True) as session:
            ids = list(await session.scalars(old))
        return await self._remove(inbox, "event_id", ids)

    async def _remove(self, table: Table, name: str, ids: Sequence[object]) -> int:
        if not ids:
            return 0
        async with self._database.session() as session:
            return await changes.count(session, delete(table).where(table.c[name].in_(ids)))

    async def _read(self, query: Select[Any]) -> list[Row]:
        async with self._database.reading(fresh=True) as session:
            return [Row(*row) for row in await session.execute(query)]
