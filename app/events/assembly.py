"""Opens what a process does with events: its service's relay, if it leads, and its share of what the service handles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from app import redis_client, telemetry
from app.data import Database
from app.errors import Misconfigured
from app.events.handling.consumer import Consumer
from app.events.handling.desk import Desk, Times
from app.events.handling.group import Group
from app.events.handling.handlers import Handlers
from app.events.handling.inbox import Inbox
from app.events.handling.retrying import RetryPolicy
from app.events.handling.wishes import Wishes
from app.events.handling.worker import Worker
from app.events.observer import EventObserver, NullObserver
from app.events.operating.meter import Meter
from app.events.operating.surveyor import Surveyor
from app.events.publishing import trimming
from app.events.publishing.ledger import Ledger
from app.events.publishing.outbox import PUBLISHED, Outbox
from app.events.publishing.relay import Invalidate, Relay
from app.events.publishing.retention import Policy, Retention
from app.events.publishing.streams import Streams
from app.events.publishing.wake import Waker
from app.mesh.coordination import Coordination, Lease, PeriodicJob, open_line
from app.mesh.coordination.line import Line
from app.mesh.keys import Keys, partition_lease
from app.settings import EventSettings

_log = telemetry.log("events")

BLOCK_SECONDS = 2.0
# A relay that gives its lease back is followed this soon.
LOOK_SECONDS = 0.5
# What waits is measured with every so many looks at the streams, and counted so far.
_MEASURE_CHECKS = 5
_MEASURED_UP_TO = 10_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What events need of the process.

    Args:
        me: this process's name among `members`.
        members: the processes of this service that are ready.
        invalidate: `Cache.invalidate`.
        drain_seconds: how long handlers may take to finish when the process stops.
    """

    service: str
    me: str
    members: Callable[[], Collection[str]]
    redis_url: str
    keys: Keys
    coordination: Coordination
    invalidate: Invalidate
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class Events:
    """What this process does with events, for the management view. Without any of them, it has none to send or handle."""

    relay: Relay | None = None
    job: PeriodicJob | None = None
    consumer: Consumer | None = None
    desk: Desk | None = None

    def describe(self) -> dict[str, Any]:
        """Plain facts, and nothing of what is in the events."""
        failure = None if self.desk is None else self.desk.last_failure
        return {
            "relay": "none" if self.job is None else "leading" if self.job.leading else "following",
            "relay_trouble": None if self.relay is None else self.relay.trouble or None,
            "streams": repr(self.relay),
            "partitions": [] if self.consumer is None else sorted(self.consumer.held),
            "open_handlers": 0 if self.desk is None else self.desk.open,
            "last_error": None if failure is None else asdict(failure),
        }


@asynccontextmanager
async def open_events(
    settings: EventSettings,
    around: Surroundings,
    database: Database | None,
    *,
    outbox: Outbox | None,
    handlers: Handlers | None,
    observer: EventObserver | None = None,
) -> AsyncIterator[Events]:
    """Relay and handle events for the length of the block; a Redis that is away is not fatal.

    Raises:
        Misconfigured: there is no database, or handlers without an outbox, whose tables they need.
    """
    if outbox is None and handlers is None:
        yield Events()
        return
    if database is None or outbox is None:
        raise Misconfigured(f"Service {around.service}: events need models and an outbox")
    observer = observer or NullObserver()
    async with AsyncExitStack() as stack:
        line = await stack.enter_async_context(
            open_line(around.redis_url, timeout_seconds=settings.redis_timeout_seconds)
        )
        opener = _Opener(settings, around, database, outbox, line, observer)
        relay = opener.relay()
        job = around.coordination.job(
            f"relay:{around.service}",
            relay.run,
            every=settings.check_seconds,
            ttl=settings.lease_seconds,
            look=LOOK_SECONDS,
        )
        waker = await stack.enter_async_context(opener.waker(relay, job))
        database.on_commit(lambda info: waker.wake() if PUBLISHED in info else None)
        await stack.enter_async_context(job)
        await stack.enter_async_context(opener.meter(job, stack))
        consumer = desk = None
        if handlers is not None and handlers.services:
            desk = opener.desk(handlers)
            consumer = await stack.enter_async_context(opener.consumer(handlers, desk, stack))
        yield Events(relay, job, consumer, desk)


class _Opener:
    """Puts the parts together."""

    def __init__(
        self,
        settings: EventSettings,
        around: Surroundings,
        database: Database,
        outbox: Outbox,
        line: Line,
        observer: EventObserver,
    ) -> None:
        self._settings, self._around, self._database = settings, around, database
        self._line, self._observer = line, observer
        self._ledger = Ledger(database, outbox.tables)
        self._inbox = Inbox(database, outbox.tables.inbox)

    def relay(self) -> Relay:
        settings, around = self._settings, self._around
        streams = Streams(self._line, around.keys, around.service, settings.partitions)
        policy = Policy(
            trimming.Policy(age_ms=int(settings.stream_hours * 3_600_000), length=settings.stream_length),
            outbox=timedelta(hours=settings.retention_hours),
        )
        retention = Retention(policy, self._ledger, streams, observer=self._observer)
        return Relay(
            self._ledger, streams, invalidate=around.invalidate, retention=retention, observer=self._observer,
            check_seconds=settings.check_seconds,
        )  # fmt: skip

    def waker(self, relay: Relay, job: PeriodicJob) -> Waker:
        around = self._around
        watch = redis_client.open_watch(around.redis_url, block_seconds=BLOCK_SECONDS)
        return Waker(
            around.keys.wake(around.service), line=self._line, watch=watch, block_seconds=BLOCK_SECONDS,
            wake_relay=relay.wake, leading=lambda: job.leading,
        )  # fmt: skip

    def meter(self, job: PeriodicJob, stack: AsyncExitStack) -> Meter:
        settings, around = self._settings, self._around
        client = redis_client.open_async(
            around.redis_url, timeout_seconds=settings.redis_timeout_seconds, max_connections=2
        )
        stack.push_async_callback(client.aclose)
        surveyor = Surveyor(self._line, client, around.keys, count_up_to=_MEASURED_UP_TO)
        return Meter(
            around.service, settings.partitions, self._ledger, surveyor, keys=around.keys, leading=lambda: job.leading,
            up=lambda: self._line.up, observer=self._observer, every_seconds=settings.check_seconds * _MEASURE_CHECKS,
        )  # fmt: skip

    def desk(self, handlers: Handlers) -> Desk:
        settings = self._settings
        return Desk(
            handlers, self._database, self._inbox,
            policy=RetryPolicy(settings.tries, settings.retry_seconds, settings.retry_max_seconds),
            times=Times(settings.handler_seconds), slots=asyncio.Semaphore(settings.concurrency), observer=self._observer,
        )  # fmt: skip

    def consumer(self, handlers: Handlers, desk: Desk, stack: AsyncExitStack) -> Consumer:
        settings, around = self._settings, self._around
        watch = redis_client.open_watch(
            around.redis_url, block_seconds=BLOCK_SECONDS, max_connections=settings.partitions + 1
        )
        stack.push_async_callback(watch.aclose)

        def lease(partition: int) -> Lease:
            name = partition_lease(around.service, partition)
            return around.coordination.lease(name, ttl=settings.lease_seconds, holder=around.me)

        def worker(partition: int, held: Lease) -> Worker:
            group = Group(
                around.service, partition, handlers.services, line=self._line, watch=watch, keys=around.keys,
                lock=around.keys.lock(held.name), owner=held.owner, consumer=around.me, block_seconds=BLOCK_SECONDS,
                max_dead=settings.max_dead,
            )  # fmt: skip
            return Worker(
                group, handlers, desk, self._inbox, observer=self._observer,
                # To cut a handler off for a newcomer would only make it begin anew.
                hand_over_seconds=settings.handler_seconds, drain_seconds=around.drain_seconds,
            )  # fmt: skip

        return Consumer(
            settings.partitions, me=around.me, members=around.members,
            wishes=Wishes(self._line, around.keys, around.service), make_lease=lease, make_worker=worker,
        )  # fmt: skip
