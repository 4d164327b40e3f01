"""Every query of users; each method is one transaction, and what it changes is told in the same one.

Who reads a user through a cache names the tag `tag_of(user_id)`: a change invalidates it in every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, Duplicate, changes, pagination, versions
from app.data.pagination import Page
from app.data.versions import Expected
from app.services.users.events import UserChanged, UserRemoved, outbox
from app.services.users.logic import EmailTaken, User
from app.services.users.models import users


class UserRepository:
    """The users of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: int) -> User | None:
        async with self._database.reading() as session:
            row = (await session.execute(select(users).where(users.c.id == user_id))).one_or_none()
        return User(*row) if row else None

    async def page(self, *, limit: int, cursor: str | None) -> Page[User]:
        """The users after `cursor`, by id. Raises InvalidInput for a malformed cursor."""
        query = select(users).where(users.c.id > pagination.after_id(cursor)).order_by(users.c.id).limit(limit + 1)
        async with self._database.reading() as session:
            found = [User(*row) for row in await session.execute(query)]
        return pagination.cut(found, limit, lambda user: user.id)

    async def add(self, *, name: str, email: str, created_at: datetime) -> User:
        values = {"name": name, "email": email, "created_at": created_at}
        try:
            async with self._database.session() as session:
                user_id = await changes.new_id(session, insert(users).values(values))
        except Duplicate as error:
            raise _taken(email) from error
        return User(id=user_id, name=name, email=email, created_at=created_at)

    async def change(self, user_id: int, new: Mapping[str, str], *, expected: Expected = None) -> User | None:
        """Change the columns that `new` names; None if there is no such user. Raises EmailTaken, PreconditionFailed."""
        this = users.c.id == user_id
        new_values = {**new, "version": users.c.version + 1}
        statement = update(users).where(this, versions.among(users.c.version, expected)).values(new_values)
        try:
            async with self._database.session() as session:
                changed = await changes.count(session, statement)
                row = (await session.execute(select(users).where(this))).one_or_none()
                if changed and row is not None:
                    await _tell(session, UserChanged(user_id=user_id, name=row.name))
        except Duplicate as error:
            raise _taken(new["email"]) from error
        if not changed:
            versions.missed(expected, there=row is not None)
        return User(*row) if changed and row else None

    async def remove(self, user_id: int, *, expected: Expected = None) -> bool:
        """Whether there was such a user. Raises PreconditionFailed."""
        this = users.c.id == user_id
        async with self._database.session() as session:
            removed = await changes.count(session, delete(users).where(this, versions.among(users.c.version, expected)))
            if removed:
                await _tell(session, UserRemoved(user_id=user_id))
            else:
                versions.missed(expected, there=await session.scalar(select(users.c.id).where(this)) is not None)
        return removed == 1

    async def fill(self, people: Sequence[User]) -> None:
        """Put `people` into an empty table, with their ids; a table with anybody in it is left alone."""
        rows = [{"id": p.id, "name": p.name, "email": p.email, "created_at": p.created_at} for p in people]
        try:
            async with self._database.session() as session:
                if (await session.execute(select(users.c.id).limit(1))).first() is None:
                    await session.execute(insert(users), rows)
                    await changes.count_on(session, users.c.id)
        except Duplicate:
            # Another process was faster: all of its rows are in, and none of ours.
            return


def tag_of(user_id: int) -> str:
    """Of every cached value that depends on this user."""
    return f"user:{user_id}"


async def _tell(session: AsyncSession, event: UserChanged | UserRemoved) -> None:
    # First the caches: who hears of the change and asks must not find the user as before.
    await outbox.invalidate(session, tag_of(event.user_id))
    await outbox.publish(session, event)


def _taken(email: str) -> EmailTaken:
    return EmailTaken(f"Another user has the e-mail address {email}")
