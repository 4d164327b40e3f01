"""Whether an event has had its effect: its id is written in the same transaction, so there is one of both, or none."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Table, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database


class Known(Exception):
    """The event has had its effect before."""


class Inbox:
    """The ids of the events that one service has handled."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database, self._table, self._insert = database, table, insert(table)

    async def record(self, session: AsyncSession, event_id: str, now: datetime) -> None:
        """Note the event in the transaction of its effect; waits for another transaction that is just handling it.

        Raises:
            Known: it was handled before.
        """
        try:
            await session.execute(self._insert, {"event_id": event_id, "handled_at": now})
        except IntegrityError as error:
            raise Known from error

    async def known(self, event_ids: Collection[str]) -> frozenset[str]:
        """Which of them were handled, as the primary knows it."""
        column = self._table.c.event_id
        async with self._database.reading(fresh=True) as session:
            return frozenset(await session.scalars(select(column).where(column.in_(event_ids))))
