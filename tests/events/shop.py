"""A toy service that sends and hears its own events: it counts what is bought, in a table of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, String, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, tables
from app.events import Event, Handlers, Outbox
from app.events.assembly import Events, Surroundings, open_events
from app.events.observer import Handling, Measurement, Notice
from app.mesh.coordination import Coordination, open_line
from app.mesh.keys import Keys
from app.settings import EventSettings, load

NAME = "shop"
metadata = tables.metadata()
sales = Table(
    "shop_sales",
    metadata,
    Column("id", tables.BIG_ID, primary_key=True),
    Column("customer", String(40), nullable=False),
    Column("number", Integer, nullable=False),
    Column("process", BigInteger, nullable=False),
    **tables.NUMBERED,
)


class Bought(Event, type="shop.bought", key="customer"):
    """Somebody has bought something; `number` counts per customer."""

    customer: str
    number: int


class Renamed(Event, type="shop.renamed"):
    """Nobody handles this."""

    name: str = ""


outbox = Outbox(NAME, metadata, sends=(Bought, Renamed))

Handle = Callable[[Bought, AsyncSession], Awaitable[None]]


class Witness:
    """The observer that remembers."""

    def __init__(self) -> None:
        self.published_types: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()
        self.measurements: list[Measurement | None] = []

    def published(self, type_: str, count: int, /) -> None:
        self.published_types[type_] += count

    def handled(self, details: Handling, /) -> None:
        self.outcomes[details.outcome] += 1

    def noticed(self, notice: Notice, stream: str, count: int = 1, /) -> None:
        self.notices[notice] += count

    def measured(self, details: Measurement | None, /) -> None:
        self.measurements.append(details)


def settings(**changes: Any) -> EventSettings:
    """Quick ones."""
    quick = {
        "lease_seconds": 1.0,
        "check_seconds": 0.2,
        "partitions": 4,
        "retry_seconds": 0.01,
        "retry_max_seconds": 0.05,
    }
    return load().events.model_copy(update=quick | changes)


@dataclass
class Shop:
    """Processes of the service over one database and one Redis."""

    database: Database
    redis_url: str
    keys: Keys
    witness: Witness = field(default_factory=Witness)
    forgotten: list[str] = field(default_factory=list)
    _numbers: Counter[str] = field(default_factory=Counter)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _members: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def process(
        self, handle: Handle | None = None, *, listening: bool = True, drain_seconds: float = 2.0, **changes: Any
    ) -> AsyncIterator[Events]:
        """One more process; `handle` comes before the sale is noted."""
        number = next(self._ids)
        me = f"shop-{number}"
        handlers = Handlers()

        @handlers.on(Bought)
        async def note(bought: Bought, session: AsyncSession) -> None:
            if handle is not None:
                await handle(bought, session)
            values = {"customer": bought.customer, "number": bought.number, "process": number}
            await session.execute(insert(sales).values(values))

        self._members.append(me)
        try:
            async with open_line(self.redis_url, timeout_seconds=2.0) as line:
                around = Surroundings(
                    service=NAME, me=me, members=lambda: self._members, redis_url=self.redis_url, keys=self.keys,
                    coordination=Coordination(line, self.keys), invalidate=self._forget, drain_seconds=drain_seconds,
                )  # fmt: skip
                async with open_events(
                    settings(**changes), around, self.database, outbox=outbox,
                    handlers=handlers if listening else None, observer=self.witness,
                ) as events:  # fmt: skip
                    yield events
        finally:
            self._members.remove(me)

    async def buy(self, *customers: str, at: timedelta | datetime | None = None, **options: Any) -> None:
        """Publish one purchase for each of `customers`, all in one transaction."""
        async with self.database.session() as session:
            for customer in customers:
                self._numbers[customer] += 1
                bought = Bought(customer=customer, number=self._numbers[customer])
                await outbox.publish(session, bought, at=at, **options)

    async def sold(self, customer: str | None = None) -> list[int]:
        """The numbers of the sales that were noted, in that order."""
        query = select(sales.c.number).order_by(sales.c.id)
        if customer is not None:
            query = query.where(sales.c.customer == customer)
        async with self.database.reading() as session:
            return list(await session.scalars(query))

    async def until_sold(self, count: int) -> None:
        """Wait until so many sales were noted."""
        await until(lambda: self._has_sold(count))

    async def _has_sold(self, count: int) -> bool:
        return len(await self.sold()) >= count

    async def _forget(self, *tags: str) -> bool:
        self.forgotten += tags
        return True


async def until(condition: Callable[[], Awaitable[object]], *, seconds: float = 30) -> None:
    """Wait until `condition` gives something true."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


def each(customers: Sequence[str], times: int) -> list[str]:
    """``a b a b …``"""
    return [customer for _ in range(times) for customer in customers]
