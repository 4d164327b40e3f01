"""Requests that may come twice: who deals with one, and how it was answered.

    (unknown) ──claim──► in flight ──keep──► answered ──after a day──► (gone)
        ▲                 │     ▲ │
        └──────forget─────┘     └─┘ its lease has run out: claimed again, by another token

A claim is bound to a token: who comes back after its lease has run out, and finds another's, changes nothing any more.
The rows stand in the database of the service, beside the effects that they speak of, and in no cache.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Column, ColumnElement, Integer, MetaData, Row, Table, Text, delete, insert, select, update
from sqlalchemy.dialects import mysql

from app import telemetry
from app.data import changes, tables
from app.data.database import Database
from app.data.faults import Duplicate
from app.errors import IdempotencyKeyReused, PlatformError, RequestInFlight

# Whoever is told to ask again need not wait for long: most requests are over in less.
_RETRY_AFTER_SECONDS = 1.0
# A row may go between the attempt to write it and the look at it; not again and again.
_ROUNDS = 5

_log = telemetry.log("data.idempotency")


def table(metadata: MetaData, service: str) -> Table:
    """The table of one service, for its models and for the revision that makes it.

    What has been released stays as it is: those revisions have run. Another shape is a table of another name.
    """
    return Table(
        table_name(service),
        metadata,
        Column("key", tables.key(64), primary_key=True),
        Column("fingerprint", tables.key(64), nullable=False),
        Column("token", tables.key(32), nullable=False),
        Column("leased_until", tables.UtcDateTime(), nullable=False),
        Column("expires_at", tables.UtcDateTime(), nullable=False, index=True),
        # All of them are empty while the request is in flight.
        Column("status", Integer, nullable=True),
        Column("headers", Text, nullable=True),
        # In base64: not every driver takes bytes, and not every text is one that a database can store.
        Column("body", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=True),
        **tables.OPTIONS,
    )


def table_name(service: str) -> str:
    return f"{service}_idempotency"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long an answer is kept; every `interval_seconds`, up to `batch` that are older are removed."""

    kept: timedelta = timedelta(hours=24)
    interval_seconds: float = 60.0
    batch: int = 200


@dataclass(frozen=True, slots=True)
class Claim:
    """Whoever has it deals with the request."""

    key: str
    token: str


@dataclass(frozen=True, slots=True)
class Reply:
    """How a request was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Ledger:
    """The requests of one service.

    Args:
        table: made by `table`.
        now: the time, with its zone.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        database: Database,
        table: Table,
        policy: Policy = Policy(),  # a frozen value
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._table, self._policy = database, table, policy
        self._now, self._clock = now, clock
        self._next_purge = float("-inf")

    async def claim(self, key: str, fingerprint: str, *, lease: timedelta) -> Claim | Reply:
        """The right to deal with the request `key`; or, if it was dealt with before, the reply.

        Args:
            key, fingerprint: digests, of at most 64 characters: whose request it is, and what it says.
            lease: by then it is dealt with, or whoever claims it next may.

        Raises:
            IdempotencyKeyReused: the key belongs to a request of another fingerprint.
            RequestInFlight: somebody else is dealing with it.
            Unavailable: the database is away.
        """
        now = self._now()
        claim = Claim(key, secrets.token_hex(16))
        values = {
            "fingerprint": fingerprint,
            "token": claim.token,
            "leased_until": now + lease,
            "expires_at": now + self._policy.kept,
            "status": None,
        }
        for _ in range(_ROUNDS):
            if await self._insert({"key": key, **values}):
                return claim
            known = await self._find(key)
            if known is None:
                continue
            reply = _verdict(known, fingerprint, now)
            if reply is not None:
                return reply
            if await self._update(Claim(key, known.token), values):
                return claim
        raise _in_flight()

    async def keep(self, claim: Claim, reply: Reply) -> bool:
        """Write down how the request was answered; False, and nothing, if it is another's by now."""
        headers = orjson.dumps(dict(reply.headers)).decode()
        body = base64.b64encode(reply.body).decode()
        return await self._update(claim, {"status": reply.status, "headers": headers, "body": body})

    async def forget(self, claim: Claim) -> None:
        """Let the request be dealt with again, if it is not another's by now."""
        statement = delete(self._table).where(self._is(claim))
        await self._database.transact(lambda session: session.execute(statement))

    async def purge_if_due(self) -> int:
        """Remove some of what has been kept for long enough, once in a while; return how many. Never raises."""
        if self._clock() < self._next_purge:
            return 0
        self._next_purge = self._clock() + self._policy.interval_seconds
        try:
            return await self._purge(self._now())
        except PlatformError as error:
            _log.warning("old replies must wait", error=repr(error))
            return 0

    async def _purge(self, now: datetime) -> int:
        this = self._table.c
        query = select(this.key).where(this.expires_at < now).order_by(this.expires_at).limit(self._policy.batch)
        async with self._database.reading(fresh=True) as session:
            old = sorted(await session.scalars(query))
        if not old:
            return 0
        # Asked again: one may have been claimed anew.
        statement = delete(self._table).where(this.key.in_(old), this.expires_at < now)
        return await self._database.transact(lambda session: changes.count(session, statement))

    async def _insert(self, values: dict[str, Any]) -> bool:
        try:
            await self._database.transact(lambda session: session.execute(insert(self._table).values(values)))
        except Duplicate:
            return False
        return True

    async def _find(self, key: str) -> Row[Any] | None:
        async with self._database.reading(fresh=True) as session:
            return (await session.execute(select(self._table).where(self._table.c.key == key))).one_or_none()

    async def _update(self, claim: Claim, values: dict[str, Any]) -> bool:
        statement = update(self._table).where(self._is(claim)).values(values)
        return await self._database.transact(lambda session: changes.count(session, statement)) == 1

    def _is(self, claim: Claim) -> ColumnElement[bool]:
        return (self._table.c.key == claim.key) & (self._table.c.token == claim.token)


def _verdict(known: Row[Any], fingerprint: str, now: datetime) -> Reply | None:
    """The reply, if there is one; None: it may be claimed. Raises: IdempotencyKeyReused, RequestInFlight."""
    if known.expires_at <= now:
        return None
    if known.fingerprint != fingerprint:
        raise IdempotencyKeyReused("With this Idempotency-Key another request was made")
    if known.status is not None:
        return Reply(known.status, orjson.loads(known.headers), base64.b64decode(known.body))
    if known.leased_until > now:
        raise _in_flight()
    return None


def _in_flight() -> RequestInFlight:
    return RequestInFlight("The first request with this Idempotency-Key is not done", retry_after=_RETRY_AFTER_SECONDS)
