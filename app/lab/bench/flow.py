"""Runs inside a child: events of a toy service to itself, through outbox, Redis and inbox.

``python -m app.lab.bench.flow --core N --events N --round N`` prints the figures as a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import orjson
from sqlalchemy import Column, Integer, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app import settings as settings_room
from app.data import Database, tables
from app.events import Event, Handlers, Outbox
from app.events.assembly import Surroundings, open_events
from app.events.observer import Handling, NullObserver
from app.lab import figures
from app.lab.bench import footing
from app.lab.bench.serve import bind
from app.mesh.coordination import Coordination, open_line
from app.mesh.keys import Keys
from app.settings import Settings

AT_ONCE = 32
KEYS = 500
_LINE_SECONDS = 5.0


class Happened(Event, type="bench.happened", key="subject"):
    """Something happened to one of many."""

    subject: int
    number: int


class Effects(NullObserver):
    """Counts what has taken effect."""

    def __init__(self) -> None:
        self.done = 0
        self._awaited = 0
        self._reached = asyncio.Event()

    def handled(self, details: Handling, /) -> None:
        self.done += details.outcome == "done"
        if self.done >= self._awaited:
            self._reached.set()

    async def reach(self, done: int) -> None:
        """Return when so many have taken effect since the beginning."""
        self._awaited = done
        self._reached.clear()
        if self.done < done:
            await self._reached.wait()


class Flow:
    """A service of its own for each run."""

    def __init__(self, settings: Settings, number: int) -> None:
        self.settings, self.name = settings, f"bench{number}"
        # Streams of its own: what another run has left there would be handled here, too.
        self._id = secrets.token_hex(4)
        self.metadata = tables.metadata()
        self._counts = Table(
            f"{self.name}_effects", self.metadata, Column("id", tables.BIG_ID, primary_key=True),
            Column("subject", Integer, nullable=False), Column("number", Integer, nullable=False), **tables.NUMBERED,
        )  # fmt: skip
        self._outbox = Outbox("bench", self.metadata, sends=(Happened,))
        self.database = Database(settings.database_url_of("bench"), settings.data)
        self.effects = Effects()
        self._numbers = count()

    async def prepare(self) -> None:
        engine = create_async_engine(self.settings.database_url_of("bench"))
        async with engine.begin() as connection:
            await connection.run_sync(self.metadata.drop_all)
            await connection.run_sync(self.metadata.create_all)
            await connection.execute(insert(self._outbox.tables.relay).values(id=1, batch=0))
        await engine.dispose()

    @asynccontextmanager
    async def running(self, *, listening: bool) -> AsyncIterator[None]:
        """The relay, and the handlers if it is `listening`."""
        handlers = Handlers()
        handlers.on(Happened)(self._take_effect)
        redis_url, keys = (
            self.settings.redis_url.get_secret_value(),
            Keys(f"{self.settings.registry.namespace}-{self._id}"),
        )
        async with open_line(redis_url, timeout_seconds=_LINE_SECONDS) as line:
            around = Surroundings(
                service="bench", me="bench-1", members=lambda: ["bench-1"], redis_url=redis_url, keys=keys,
                coordination=Coordination(line, keys), invalidate=_no_cache, drain_seconds=10.0,
            )  # fmt: skip
            async with open_events(
                self.settings.events, around, self.database, outbox=self._outbox,
                handlers=handlers if listening else None, observer=self.effects,
            ):  # fmt: skip
                yield

    async def publish(self, events: int) -> None:
        """So many, each in a transaction of its own, some at once."""
        each = [events // AT_ONCE + (n < events % AT_ONCE) for n in range(AT_ONCE)]
        await asyncio.gather(*(self.publish_in_turn(some) for some in each))

    async def publish_in_turn(self, events: int) -> None:
        """So many, one after the other."""
        for _ in range(events):
            number = next(self._numbers)
            async with self.database.session() as session:
                await self._outbox.publish(session, Happened(subject=number % KEYS, number=number))

    async def _take_effect(self, happened: Happened, session: AsyncSession) -> None:
        await session.execute(insert(self._counts).values(subject=happened.subject, number=happened.number))


async def _no_cache(*_: str) -> bool:
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.lab.bench.flow")
    for name in ("core", "events", "round"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    bind(options.core)
    footing.run(lambda: _measure(options.events, options.round))


async def _measure(events: int, number: int) -> None:
    flow = Flow(settings_room.load(), number)
    await flow.prepare()
    try:
        both, awaited, latencies = 0.0, 0, list[float]()
        async with flow.running(listening=True):
            await flow.publish(AT_ONCE)
            await flow.effects.reach(AT_ONCE)
            awaited = AT_ONCE + events
            started = time.perf_counter()
            await asyncio.gather(flow.publish(events), flow.effects.reach(awaited))
            both = events / (time.perf_counter() - started)
            for _ in range(max(20, events // 10)):
                await flow.publish_in_turn(1)
                committed = time.perf_counter()
                awaited += 1
                await flow.effects.reach(awaited)
                latencies.append(time.perf_counter() - committed)
        await flow.publish(events)
        async with flow.running(listening=True):
            started = time.perf_counter()
            await flow.effects.reach(awaited + events)
            backlog = events / (time.perf_counter() - started)
    finally:
        await flow.database.close()
    latencies.sort()
    sys.stdout.buffer.write(
        orjson.dumps(
            {
                "per_second": both,
                "handled_per_second": backlog,
                "p50_ms": figures.percentile(latencies, 50) * 1000,
                "p99_ms": figures.percentile(latencies, 99) * 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
