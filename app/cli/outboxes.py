"""What waits in the outboxes whose databases are reached from here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from app.data import Database, migrations
from app.errors import PlatformError
from app.events.publishing.ledger import Backlog, Ledger
from app.service import Service
from app.settings import Settings


async def backlogs(settings: Settings, services: Iterable[Service]) -> Mapping[str, Backlog]:
    """By service; a database that is away, or has not the tables of this code, is left out."""
    found: dict[str, Backlog] = {}
    for service in services:
        try:
            backlog = await _backlog(service, settings)
        except PlatformError:
            continue
        if backlog is not None:
            found[service.name] = backlog
    return found


async def _backlog(service: Service, settings: Settings) -> Backlog | None:
    url = settings.database_url_of(service.name)
    if service.outbox is None:
        return None
    tables = await migrations.status(service, url)
    if tables.current is None or tables.pending:
        return None
    database = Database(url, settings.data)
    try:
        return await Ledger(database, service.outbox.tables).backlog(datetime.now(UTC))
    finally:
        await database.close()
