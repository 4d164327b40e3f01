"""Every query of accounts, sessions, consents and the audit log; each method is one transaction.

Who may do what is never read from a replica, which may be behind.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Delete, Table, Update, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Contended, Database, Duplicate, changes
from app.services.identity.accounts import Account, AccountExists, Attempt, Lockout, Session, lockout
from app.services.identity.journal import Entry
from app.services.identity.models import accounts, audit, codes, consents, device_codes, families, sessions

_ACCOUNT = (
    accounts.c.id,
    accounts.c.subject,
    accounts.c.username,
    accounts.c.name,
    accounts.c.email,
    accounts.c.roles,
    accounts.c.disabled,
    accounts.c.created_at,
)
# No row has it.
_NOBODY = 0


class AccountStore:
    """The accounts of one database, who is logged in, what they agreed to, and what happened."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Accounts

    async def add(
        self,
        *,
        subject: str,
        username: str,
        name: str,
        email: str,
        password_hash: str,
        roles: Collection[str],
        created_at: datetime,
    ) -> Account:
        """Raises AccountExists: the user name or the subject is taken."""
        values = {
            "subject": subject,
            "username": username,
            "name": name,
            "email": email,
            "password_hash": password_hash,
            "roles": " ".join(roles),
            "disabled": False,
            "failures": 0,
            "created_at": created_at,
        }
        try:
            account_id = await self._database.transact(
                lambda session: changes.new_id(session, insert(accounts).values(values))
            )
        except Duplicate as error:
            raise AccountExists(f"There is an account {username} or subject {subject} already") from error
        return Account(account_id, subject, username, name, email, tuple(roles), False, created_at)

    async def find(self, account_id: int) -> Account | None:
        return await self._one(accounts.c.id == account_id)

    async def find_by_username(self, username: str) -> Account | None:
        """Args: username: as `accounts.canonical` has it."""
        return await self._one(accounts.c.username == username)

    async def find_by_subject(self, subject: str) -> Account | None:
        return await self._one(accounts.c.subject == subject)

    async def every(self) -> list[Account]:
        """All of them, by user name."""
        query = select(*_ACCOUNT).order_by(accounts.c.username)
        return [_account(row) for row in await self._database.read(lambda session: session.execute(query), fresh=True)]

    async def disable(self, account_id: int) -> None:
        """Let nobody log in to an account any more, and end its sessions."""

        async def work(session: AsyncSession) -> None:
            await session.execute(update(accounts).where(accounts.c.id == account_id).values(disabled=True))
            await session.execute(delete(sessions).where(sessions.c.account_id == account_id))

        await self._database.transact(work)

    async def attempt(self, username: str, policy: Lockout, now: datetime) -> Attempt | None:
        """Count a wrong password ahead of looking at it, unless the account is locked; None if there is none.

        Of many at once, one after the other is counted, and none once the count has locked the account.
        """
        while True:
            row = await self._password_of(username)
            failures = 1 if row is None else row.failures + 1
            pause = lockout(failures, policy)
            until = None if pause is None else now + pause
            # Also where it can match nothing: an unknown name is to cost what a known one costs.
            this = accounts.c.id == (_NOBODY if row is None else row.id)
            unlocked = or_(accounts.c.locked_until.is_(None), accounts.c.locked_until <= now)
            statement = update(accounts).where(this, unlocked, accounts.c.failures == failures - 1)
            counted = await self._count(statement.values(failures=failures, locked_until=until)) == 1
            if row is None:
                return None
            if counted:
                return Attempt(_account(row), row.password_hash, True, until)
            if row.locked_until is not None and row.locked_until > now:
                return Attempt(_account(row), row.password_hash, False, row.locked_until)

    async def forgive(self, account_id: int) -> None:
        """After the right password: forget the wrong ones."""
        await self._count(update(accounts).where(accounts.c.id == account_id).values(failures=0, locked_until=None))

    async def replace_hash(self, account_id: int, *, old: str, new: str) -> None:
        """Store the same password anew; a password that was changed meanwhile stays."""
        this = (accounts.c.id == account_id, accounts.c.password_hash == old)
        await self._count(update(accounts).where(*this).values(password_hash=new))

    async def change_password(self, account_id: int, password_hash: str) -> list[str]:
        """Set another password, unlock the account and end its sessions; returns their digests."""
        mine = sessions.c.account_id == account_id

        async def work(session: AsyncSession) -> list[str]:
            this = update(accounts).where(accounts.c.id == account_id)
            await session.execute(this.values(password_hash=password_hash, failures=0, locked_until=None))
            ended = list(await session.scalars(select(sessions.c.digest).where(mine)))
            await session.execute(delete(sessions).where(mine))
            return ended

        return await self._database.transact(work)

    # Sessions

    async def open_session(
        self,
        digest: str,
        account_id: int,
        *,
        auth_time: datetime,
        expires_at: datetime,
        replaces: str | None = None,
    ) -> None:
        """Note a login.

        Args:
            replaces: the session of the same account in the same browser: what was begun in it belongs to the new one.
        """
        values = {"digest": digest, "account_id": account_id, "auth_time": auth_time, "expires_at": expires_at}

        async def work(session: AsyncSession) -> None:
            await session.execute(insert(sessions).values(values))
            if replaces is not None:
                await session.execute(delete(sessions).where(sessions.c.digest == replaces))
                for table in (families, codes, device_codes):
                    heirs = update(table).where(table.c.session_digest == replaces)
                    await session.execute(heirs.values(session_digest=digest))

        await self._database.transact(work)

    async def abandon(self, session_digest: str) -> None:
        """What a login has begun and nobody has fetched yet comes to nothing: codes, and devices that were allowed."""

        async def work(session: AsyncSession) -> None:
            waiting = (codes.c.session_digest == session_digest, codes.c.used_at.is_(None))
            await session.execute(delete(codes).where(*waiting))
            allowed = (device_codes.c.session_digest == session_digest, device_codes.c.state == "approved")
            await session.execute(update(device_codes).where(*allowed).values(state="denied"))

        await self._database.transact(work)

    async def find_session(self, digest: str, now: datetime) -> Session | None:
        """A login that has not ended, of an account that is not disabled."""
        query = (
            select(*_ACCOUNT, sessions.c.auth_time, sessions.c.expires_at)
            .join(sessions, sessions.c.account_id == accounts.c.id)
            .where(sessions.c.digest == digest, sessions.c.expires_at > now, accounts.c.disabled.is_(False))
        )
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return None if row is None else Session(digest, _account(row), row.auth_time, row.expires_at)

    async def close_session(self, digest: str) -> bool:
        """Whether there was such a session."""
        return await self._count(delete(sessions).where(sessions.c.digest == digest)) == 1

    # Consents

    async def consented(self, account_id: int, client_id: str) -> frozenset[str]:
        """The scopes that the account has allowed the client."""
        query = select(consents.c.scope).where(*_between(account_id, client_id))
        scope: str | None = await self._database.read(lambda session: session.scalar(query), fresh=True)
        return frozenset((scope or "").split())

    async def consent(self, account_id: int, client_id: str, scopes: Collection[str], now: datetime) -> None:
        """Remember that the account allows the client `scopes`, and what it allowed before."""

        async def remember(session: AsyncSession) -> None:
            before = await session.scalar(select(consents.c.scope).where(*_between(account_id, client_id)))
            scope = " ".join(sorted({*(before or "").split(), *scopes}))
            if before is None:
                row = {"account_id": account_id, "client_id": client_id, "scope": scope, "given_at": now}
                await session.execute(insert(consents).values(row))
                return
            this = update(consents).where(*_between(account_id, client_id), consents.c.scope == before)
            if await changes.count(session, this.values(scope=scope, given_at=now)) != 1:
                raise Contended("Another consent came in between")

        try:
            await self._database.transact(remember)
        except Duplicate:
            # Another one was faster, and can be added to.
            await self._database.transact(remember)

    # The audit log

    async def note(self, entry: Entry) -> None:
        values = {
            "at": entry.at,
            "event": entry.event,
            "subject": entry.subject,
            "client_id": entry.client_id,
            "address": entry.address,
            "request_id": entry.request_id,
            "detail": entry.detail,
        }
        await self._database.transact(lambda session: session.execute(insert(audit).values(values)))

    async def events(self, *, limit: int = 100) -> list[Entry]:
        """The latest entries, the newest first."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        return [
            Entry(row.at, row.event, row.subject, row.client_id, row.address, row.request_id, row.detail)
            for row in await self._database.read(lambda session: session.execute(query), fresh=True)
        ]

    # Housekeeping

    async def purge(self, table: Table, column: str, *, before: datetime, limit: int) -> int:
        """Remove up to `limit` rows whose `column` is earlier than `before`; returns how many."""
        key = next(iter(table.primary_key))

        async def work(session: AsyncSession) -> int:
            chosen = select(key).where(table.c[column] < before).order_by(table.c[column]).limit(limit)
            keys = list(await session.scalars(chosen))
            # Under the condition once more: one of them may have been given more time.
            return await changes.count(
                session, delete(table).where(key.in_(keys), table.c[column] < before)
            ) if keys else 0  # fmt: skip

        return await self._database.transact(work)

    async def _count(self, statement: Update | Delete) -> int:
        """The number of rows that a transaction of this one statement has matched."""
        return await self._database.transact(lambda session: changes.count(session, statement))

    async def _one(self, condition: Any) -> Account | None:
        query = select(*_ACCOUNT).where(condition)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return None if row is None else _account(row)

    async def _password_of(self, username: str) -> Any:
        columns = (*_ACCOUNT, accounts.c.password_hash, accounts.c.failures, accounts.c.locked_until)
        query = select(*columns).where(accounts.c.username == username)
        return (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()


def _between(account_id: int, client_id: str) -> tuple[Any, Any]:
    return consents.c.account_id == account_id, consents.c.client_id == client_id


def _account(row: Any) -> Account:
    return Account(
        row.id,
        row.subject,
        row.username,
        row.name,
        row.email,
        tuple(row.roles.split()),
        row.disabled,
        row.created_at,
    )
