"""What a service has published, as it stands in its outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.data import Database
from app.events import Outbox, envelope


@dataclass(frozen=True)
class Published:
    """One event; `type` without the service."""

    type: str
    data: Mapping[str, Any]
    due_at: datetime


async def published(database: Database, outbox: Outbox) -> list[Published]:
    """All of it, in the order in which it was written; invalidations, too."""
    table = outbox.tables.outbox
    async with database.reading() as session:
        rows = await session.execute(select(table.c.content, table.c.due_at).order_by(table.c.id))
    found = [(envelope.parse(row.content), row.due_at) for row in rows]
    return [Published(event.type.partition(".")[2], event.data, due_at) for event, due_at in found]


async def types(database: Database, outbox: Outbox) -> list[str]:
    """Only what they are called."""
    return [event.type for event in await published(database, outbox)]
