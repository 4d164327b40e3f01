"""Publishing: an event is a row in the transaction of the change that it tells of, and goes out if and when that commits."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import MetaData, delete, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import context
from app.data import changes
from app.errors import Misconfigured
from app.events import partition, tables
from app.events.envelope import CloudEvent
from app.events.event import Event, kind

# What a session that has published something says to who watches commits.
PUBLISHED = "events.published"

INVALIDATED = "cache.invalidated"


class Outbox:
    """What a service sends; one for each service, made beside its tables.

    Args:
        service: its name.
        metadata: that of its tables; the outbox's own are added.
        sends: every kind of event that it may publish, for the catalogue.

    Raises:
        Misconfigured: one of `sends` is another service's.
    """

    def __init__(self, service: str, metadata: MetaData, *, sends: Sequence[type[Event]] = ()) -> None:
        for event in sends:
            if event.service() != service:
                raise Misconfigured(f"{event.__name__}: {event.event_type} is not of {service}")
        self.service, self.sends = service, tuple(sends)
        self.tables = tables.of(metadata, service)
        self._insert = insert(self.tables.outbox)
        self._kinds = frozenset(map(kind, sends))

    def __repr__(self) -> str:
        return f"<Outbox of {self.service}, {len(self.sends)} kinds of events>"

    async def publish(
        self,
        session: AsyncSession,
        event: Event,
        *,
        at: datetime | timedelta | None = None,
        expires: datetime | timedelta | None = None,
    ) -> str:
        """Publish `event` with the transaction of `session`.

        Args:
            at: not before then; an event that is not yet due can be taken back with `withdraw`.
            expires: nobody is to handle it after that.

        Returns:
            The event's id.

        Raises:
            Misconfigured: it is none of what this service sends.
            ValueError: its key is too long, or a moment has no time zone.
        """
        if kind(type(event)) not in self._kinds:
            raise Misconfigured(f"{self.service} does not list {type(event).__name__} among what it sends")
        now = datetime.now(UTC)
        envelope = _seal(event, now, None if expires is None else _moment(expires, now))
        await self._write(session, envelope, now if at is None else _moment(at, now))
        return envelope.id

    async def invalidate(self, session: AsyncSession, *tags: str) -> None:
        """Invalidate every cached value that has one of `tags`, in every process, once the transaction is committed."""
        now = datetime.now(UTC)
        event_id = uuid.uuid4().hex
        envelope = CloudEvent(
            id=event_id, type=f"{self.service}.{INVALIDATED}", version=1, source=f"/{self.service}",
            key=tags[0] if len(tags) == 1 and len(tags[0]) <= tables.MAX_KEY else event_id, time=now, data={"tags": tags},
        )  # fmt: skip
        await self._write(session, envelope, now)

    async def withdraw(self, session: AsyncSession, event_id: str) -> bool:
        """Take back an event that is not yet sent; whether it was so."""
        outbox = self.tables.outbox
        this = (outbox.c.event_id == event_id) & (outbox.c.batch == 0)
        return await changes.count(session, delete(outbox).where(this)) == 1

    async def _write(self, session: AsyncSession, envelope: CloudEvent, due_at: datetime) -> None:
        row: dict[str, Any] = {
            "event_id": envelope.id,
            "type": envelope.type,
            "slot": partition.slot_of(envelope.key),
            "content": envelope.to_json(),
            "batch": 0,
            "due_at": due_at,
        }
        await session.execute(self._insert, row)
        session.info[PUBLISHED] = True


def _seal(event: Event, now: datetime, expires: datetime | None) -> CloudEvent:
    current = context.current()
    event_id, key = uuid.uuid4().hex, event.key()
    if key is not None and not 0 < len(key) <= tables.MAX_KEY:
        raise ValueError(f"{type(event).__name__}: a key has 1 to {tables.MAX_KEY} characters")
    return CloudEvent(
        id=event_id,
        type=event.event_type,
        version=event.event_version,
        source=f"/{event.service()}",
        key=event_id if key is None else key,
        time=now,
        data=event.model_dump(mode="json"),
        request_id=current.request_id if current else None,
        traceparent=current.traceparent if current else None,
        sandbox=current.sandbox if current else None,
        expires=expires,
    )


def _moment(when: datetime | timedelta, now: datetime) -> datetime:
    moment = now + when if isinstance(when, timedelta) else when
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment
