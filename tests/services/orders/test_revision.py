"""What the flow before the events has left half-way comes to its end when the database is brought up to date."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from sqlalchemy import insert, select

from app import service
from app.data import Database, backends, migrations
from app.services.orders.events import OrderOverdue, StockReserved, outbox
from app.services.orders.handlers import confirm, give_up
from app.services.orders.logic import GIVEN_UP, State
from app.services.orders.models import orders as table
from app.services.orders.repository import OrderRepository
from tests.data.databases import SETTINGS
from tests.services.orders.placing import NOW, handle
from tests.services.outboxes import published

BEFORE = "0002"
THIS = service.load("orders")
LEFT = {1: "confirmed", 2: "pending", 3: "cancelling", 4: "abandoned", 5: "cancelled"}


async def move_to(url: str, revision: str, *, up: bool) -> None:
    go = command.upgrade if up else command.downgrade
    work = lambda _connection, config: go(config, revision)  # noqa: E731
    await asyncio.to_thread(migrations._run, THIS, backends.parse(url), work, locked=True)


@pytest.fixture
async def database(database_url: str) -> Any:
    """One of which the flow before has left an order in each state."""
    await move_to(database_url, BEFORE, up=True)
    database = Database(database_url, SETTINGS)
    async with database.session() as session:
        for number, state in LEFT.items():
            values = {"id": number, "user_id": 7, "state": state, "reference": f"r{number}", "created_at": NOW}
            await session.execute(insert(table).values(values))
    yield database
    await database.close()


async def states(database: Database) -> dict[int, str]:
    async with database.reading() as session:
        return {row.id: row.state for row in await session.execute(select(table.c.id, table.c.state))}


async def test_what_was_left_half_way_goes_on_by_events(database: Database, database_url: str) -> None:
    now = datetime.now(UTC)
    await migrations.upgrade(THIS, database_url)
    assert await states(database) == {**LEFT, 3: "cancelled"}
    told = {event.data["reference"]: event for event in await published(database, outbox)}
    assert {name: event.type for name, event in told.items()} == {"r2": "overdue", "r3": "cancelled", "r4": "overdue"}
    assert told["r3"].data == {"reference": "r3", "order_id": 3, "user_id": 7}
    assert told["r3"].due_at < now + timedelta(minutes=1)
    assert told["r2"].due_at >= now + timedelta(minutes=2)

    for name in ("r2", "r4"):
        await handle(database, give_up, OrderOverdue(reference=name))
    found = [await OrderRepository(database).find(number) for number in (2, 4)]
    assert [(order.state, order.rejection) for order in found if order] == [(State.REJECTED, GIVEN_UP)] * 2


async def test_what_an_older_process_confirms_meanwhile_is_not_given_up(database: Database, database_url: str) -> None:
    await migrations.upgrade(THIS, database_url)
    async with database.session() as session:
        await session.execute(table.update().where(table.c.id == 2).values(state="confirmed"))
    await handle(database, give_up, OrderOverdue(reference="r2"))
    assert (await states(database))[2] == "confirmed"


async def test_an_older_process_takes_a_rejected_order_for_an_abandoned_one_when_all_is_undone(
    database: Database, database_url: str
) -> None:
    await migrations.upgrade(THIS, database_url)
    await handle(database, confirm, StockReserved(reference="r2"))
    await handle(database, give_up, OrderOverdue(reference="r4"))
    await move_to(database_url, BEFORE, up=False)
    assert await states(database) == {**LEFT, 2: "confirmed", 3: "cancelled"}
    await migrations.upgrade(THIS, database_url)
