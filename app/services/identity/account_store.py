"""Every query of accounts; each method is one transaction."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from app.data import Database, changes
from app.services.identity.accounts import Account
from app.services.identity.models import accounts

_ACCOUNT = tuple(accounts.c[name] for name in Account.__dataclass_fields__)


class AccountStore:
    """The accounts of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        async with self._database.session() as session:
            account_id = await changes.new_id(session, insert(accounts).values(values))
        return Account(account_id, subject, username, name, email, tuple(roles), False, created_at)

    async def find(self, account_id: int) -> Account | None:
        return await self._one(accounts.c.id == account_id)

    async def find_by_username(self, username: str) -> Account | None:
        return await self._one(accounts.c.username == username)

    async def find_by_subject(self, subject: str) -> Account | None:
        return await self._one(accounts.c.subject == subject)

    async def _one(self, condition: Any) -> Account | None:
        async with self._database.reading() as session:
            row = (await session.execute(select(*_ACCOUNT).where(condition))).one_or_none()
        if row is None:
            return None
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
