"""The signing keys of this process: read from the database, kept in memory, looked at again once in a while."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from flask import current_app
from sqlalchemy import delete, insert, select

from app import telemetry
from app.data import Database, Duplicate
from app.errors import Unavailable
from app.services.identity import algorithms, keys
from app.services.identity.keys import Key, Plan, Policy, Seal, Turn
from app.services.identity.models import signing_keys
from app.settings import Settings
from app.web import resources

_EXTENSION = "identity.keys"
_REREAD_SECONDS = 60.0
# Beyond the life of a token, for clocks that differ.
_AFTERLIFE = timedelta(minutes=5)

_log = telemetry.log("identity.keys")


class KeyRows:
    """The keys of one database; each method is one transaction."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database, self._seal = database, seal

    async def all(self) -> list[Key]:
        query = select(signing_keys).order_by(signing_keys.c.signs_from)
        # One that was added a moment ago is to be there.
        return [self._key(row) for row in await self._database.read(lambda session: session.execute(query), fresh=True)]

    async def add(self, turn: Turn) -> bool:
        """Make a key for `turn`; False if another process was faster."""
        private = algorithms.generate(turn.algorithm)
        values = {
            "kid": private.kid,
            "algorithm": turn.algorithm,
            "secret": self._seal.close(private),
            "public": json.dumps(private.as_dict(private=False)),
            "signs_from": turn.signs_from,
            "signs_until": turn.signs_until,
            "published_until": turn.published_until,
        }
        try:
            await self._database.transact(lambda session: session.execute(insert(signing_keys).values(values)))
        except Duplicate:
            return False
        return True

    async def forget(self, kids: tuple[str, ...], *, now: datetime) -> None:
        these = delete(signing_keys).where(signing_keys.c.kid.in_(kids), signing_keys.c.published_until <= now)
        await self._database.transact(lambda session: session.execute(these))

    def _key(self, row: Any) -> Key:
        return Key(
            row.kid,
            row.algorithm,
            json.loads(row.public),
            row.signs_from,
            row.signs_until,
            row.published_until,
            self._seal.open(row.secret),
        )


class KeyRing:
    """The keys as this process knows them.

    Args:
        now: the time of day, in UTC.
        clock: monotonic seconds.
        reread_seconds: what other processes add is known here after so long; far shorter than the overlap.
    """

    def __init__(
        self,
        rows: KeyRows,
        policy: Policy,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        reread_seconds: float = _REREAD_SECONDS,
    ) -> None:
        self._rows, self._policy = rows, policy
        self._now, self._clock = now, clock
        self._reread_seconds = reread_seconds
        self._keys: list[Key] = []
        self._next = float("-inf")
        self._reading = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)} keys, {self._policy.algorithm}>"

    async def signer(self) -> Key:
        """The key that signs now."""
        await self._look()
        found = keys.signer(self._keys, self._now(), self._policy)
        if found is None:
            # A turn has ended since the last look.
            self._next = float("-inf")
            await self._look()
            found = keys.signer(self._keys, self._now(), self._policy)
        if found is None:
            raise Unavailable("There is no key to sign with", retry_after=1.0)
        return found

    async def published(self) -> list[Key]:
        """All keys that verifiers should know."""
        await self._look()
        return keys.published(self._keys, self._now())

    async def find(self, kid: str) -> Key | None:
        """The published key `kid`."""
        return next((key for key in await self.published() if key.kid == kid), None)

    async def _look(self) -> None:
        if self._clock() < self._next:
            return
        async with self._reading:
            if self._clock() < self._next:
                return
            try:
                await self._read()
            except Unavailable as error:
                if keys.signer(self._keys, self._now(), self._policy) is None:
                    raise
                _log.warning("signing keys could not be looked at", error=repr(error))
            self._next = self._clock() + self._reread_seconds

    async def _read(self) -> None:
        found = await self._rows.all()
        plan = keys.plan(found, self._now(), self._policy)
        if plan != Plan():
            await self._carry_out(plan)
            found = await self._rows.all()
        self._keys = found

    async def _carry_out(self, plan: Plan) -> None:
        for turn in plan.add:
            if await self._rows.add(turn):
                _log.info("a signing key was added", signs_from=turn.signs_from.isoformat())
        if plan.forget:
            await self._rows.forget(plan.forget, now=self._now())


def open_ring(database: Database, settings: Settings) -> KeyRing:
    """The ring that `settings` describe. Raises Misconfigured: in production without a secret."""
    identity = settings.identity
    secret = None if identity.key_secret is None else identity.key_secret.get_secret_value()
    policy = Policy(
        identity.algorithm,
        timedelta(days=identity.key_days),
        timedelta(seconds=identity.key_overlap_seconds),
        timedelta(seconds=identity.access_token_seconds) + _AFTERLIFE,
    )
    rows = KeyRows(database, Seal(secret, production=settings.env == "production"))
    return KeyRing(rows, policy, reread_seconds=min(_REREAD_SECONDS, identity.key_overlap_seconds / 4))


def ring() -> KeyRing:
    """This application's."""
    found = current_app.extensions.get(_EXTENSION)
    if found is None:
        database = resources.database
        assert database is not None, "identity has a database"  # noqa: S101  # its service says so
        found = current_app.extensions[_EXTENSION] = open_ring(database, resources.settings)
    return cast(KeyRing, found)


async def published() -> dict[str, Any]:
    """The public keys as a JWK set (RFC 7517)."""
    return {"keys": [key.public for key in await ring().published()]}
