"""Every query of codes, families, refresh tokens and device codes; each method is one transaction.

What may happen once is one UPDATE with its condition: of many at the same time, one finds a row to change. Nothing is read
from a replica, which may be behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, Duplicate, changes
from app.services.identity.authorization import (
    Code,
    DeviceCode,
    DeviceState,
    Family,
    NewRefresh,
    Refresh,
    Verdict,
    judge,
)
from app.services.identity.models import codes, device_codes, families, refresh_tokens

_CODE = tuple(codes.c[name] for name in Code.__dataclass_fields__)
_FAMILY = tuple(families.c[name] for name in Family.__dataclass_fields__)
_DEVICE = tuple(device_codes.c[name] for name in DeviceCode.__dataclass_fields__)

# What RFC 8628 adds to the interval of a device that asks too often.
SLOWER_SECONDS = 5


class TokenStore:
    """The authorizations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Authorization codes

    async def add_code(self, code: Code) -> None:
        await self._database.transact(lambda session: session.execute(insert(codes).values(asdict(code))))

    async def find_code(self, digest: str) -> Code | None:
        query = select(*_CODE).where(codes.c.digest == digest)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return None if row is None else Code(*row)

    async def redeem(self, code: Code, family: Family, refresh: NewRefresh | None) -> bool:
        """Use a code up and found its family; False if somebody else has used it."""

        async def work(session: AsyncSession) -> bool:
            this = (codes.c.digest == code.digest, codes.c.used_at.is_(None))
            if await changes.count(session, update(codes).where(*this).values(used_at=family.created_at)) != 1:
                return False
            await _found(session, family, refresh)
            return True

        return await self._database.transact(work)

    # Families

    async def find_family(self, sid: str) -> Family | None:
        query = select(*_FAMILY).where(families.c.sid == sid)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return None if row is None else Family(*row)

    async def revoke(self, sid: str, reason: str, *, now: datetime) -> bool:
        """End a family; False if it has ended already, or there is none."""
        return bool(await self._revoke(families.c.sid == sid, reason, now))

    async def revoke_of_session(self, session_digest: str, reason: str, *, now: datetime) -> list[str]:
        """End all families that come from a login; returns those that it ended."""
        return await self._revoke(families.c.session_digest == session_digest, reason, now)

    async def revoke_of_account(self, account_id: int, reason: str, *, now: datetime) -> list[str]:
        """End all families of an account; returns those that it ended."""
        return await self._revoke(families.c.account_id == account_id, reason, now)

    async def recently_revoked(self, since: datetime) -> list[tuple[str, datetime]]:
        """The families that were ended after `since`, and when."""
        query = select(families.c.sid, families.c.revoked_at).where(families.c.revoked_at > since)
        found = await self._database.read(lambda session: session.execute(query), fresh=True)
        return [(sid, revoked_at) for sid, revoked_at in found]

    # Refresh tokens

    async def find_refresh(self, digest: str) -> Refresh | None:
        return await self._database.read(lambda session: _refresh(session, digest), fresh=True)

    async def rotate(self, digest: str, new: NewRefresh, *, now: datetime, grace_seconds: float) -> Verdict:
        """Put `new` into the place of a refresh token. Of two at once one is fresh, and the other one a retry.

        Nothing changes unless the verdict is ``fresh`` or ``retried``; to end the family is the caller's.
        """

        async def work(session: AsyncSession) -> Verdict:
            used = update(refresh_tokens).where(
                refresh_tokens.c.digest == digest, refresh_tokens.c.used_at.is_(None), refresh_tokens.c.expires_at > now
            )
            first = await changes.count(session, used.values(used_at=now)) == 1
            found = await _refresh(session, digest)
            if found is None:
                return "unknown"
            verdict = judge(found, now, grace_seconds=grace_seconds)
            if verdict != "retried":
                return verdict
            # The family first: to insert its child takes a shared lock on it, and two who have one both wait for more.
            family = families.c.sid == found.family.sid
            longer = update(families).where(family, families.c.expires_at < new.expires_at)
            await session.execute(longer.values(expires_at=new.expires_at))
            await session.execute(insert(refresh_tokens).values(sid=found.family.sid, **asdict(new)))
            return "fresh" if first else "retried"

        return await self._database.transact(work)

    # Device codes

    async def add_device_code(self, code: DeviceCode) -> bool:
        """False if the user code is taken."""
        try:
            await self._database.transact(lambda session: session.execute(insert(device_codes).values(asdict(code))))
        except Duplicate:
            return False
        return True

    async def find_device_code(self, digest: str) -> DeviceCode | None:
        return await self._device_code(device_codes.c.digest == digest)

    async def find_user_code(self, user_code: str, now: datetime) -> DeviceCode | None:
        """The device code that waits for somebody to enter `user_code`."""
        waits = (device_codes.c.state == "pending", device_codes.c.expires_at > now)
        return await self._device_code(device_codes.c.user_code == user_code, *waits)

    async def poll(self, code: DeviceCode, *, now: datetime) -> bool:
        """Note that the device asks; False if it asks too soon, after which it has to wait for longer."""
        this = device_codes.c.digest == code.digest
        before = now - timedelta(seconds=code.interval_seconds)
        patient = or_(device_codes.c.polled_at.is_(None), device_codes.c.polled_at <= before)

        async def work(session: AsyncSession) -> bool:
            if await changes.count(session, update(device_codes).where(this, patient).values(polled_at=now)) == 1:
                return True
            slower = device_codes.c.interval_seconds + SLOWER_SECONDS
            await session.execute(update(device_codes).where(this).values(polled_at=now, interval_seconds=slower))
            return False

        return await self._database.transact(work)

    async def decide(
        self,
        user_code: str,
        state: DeviceState,
        *,
        account_id: int,
        session_digest: str,
        auth_time: datetime,
        now: datetime,
    ) -> bool:
        """Approve or deny a device; False if there is nothing to decide (any more)."""
        c = device_codes.c
        this = (c.user_code == user_code, c.state == "pending", c.expires_at > now)
        values = {
            "state": state,
            "account_id": account_id,
            "session_digest": session_digest,
            "auth_time": auth_time,
        }
        decided = update(device_codes).where(*this).values(values)
        return await self._database.transact(lambda session: changes.count(session, decided)) == 1

    async def redeem_device_code(self, digest: str, family: Family, refresh: NewRefresh | None) -> bool:
        """Use an approved device code up and found its family; False if somebody else has used it."""

        async def work(session: AsyncSession) -> bool:
            this = (device_codes.c.digest == digest, device_codes.c.state == "approved")
            if await changes.count(session, update(device_codes).where(*this).values(state="used")) != 1:
                return False
            await _found(session, family, refresh)
            return True

        return await self._database.transact(work)

    async def _device_code(self, *conditions: Any) -> DeviceCode | None:
        query = select(*_DEVICE).where(*conditions)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return None if row is None else DeviceCode(*row)

    async def _revoke(self, which: Any, reason: str, now: datetime) -> list[str]:
        async def work(session: AsyncSession) -> list[str]:
            these = (which, families.c.revoked_at.is_(None))
            found = await session.scalars(select(families.c.sid).where(*these).with_for_update())
            return await _end(session, list(found), reason, now)

        return await self._database.transact(work)


async def _end(session: AsyncSession, sids: Sequence[str], reason: str, now: datetime) -> list[str]:
    ended = []
    for sid in sids:
        this = update(families).where(families.c.sid == sid, families.c.revoked_at.is_(None))
        if await changes.count(session, this.values(revoked_at=now, reason=reason)) == 1:
            ended.append(sid)
    return ended


async def _found(session: AsyncSession, family: Family, refresh: NewRefresh | None) -> None:
    await session.execute(insert(families).values(asdict(family)))
    if refresh is not None:
        await session.execute(insert(refresh_tokens).values(sid=family.sid, **asdict(refresh)))


async def _refresh(session: AsyncSession, digest: str) -> Refresh | None:
    c = refresh_tokens.c
    query = select(c.expires_at, c.used_at, *_FAMILY).join(families, families.c.sid == c.sid).where(c.digest == digest)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else Refresh(digest, row[0], row[1], Family(*row[2:]))
