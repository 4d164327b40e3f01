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

_user = select(users.c.id, users.c.name, users.c.email, users.c.created_at, users.c.version)


class UserRepository:
    """The users of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: int) -> User | None:
        query = _user.where(users.c.id == user_id)
        # It is asked for the cache: what a replica has not heard of yet must not be kept after it was invalidated.
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return User(*row) if row else None

    async def page(self, *, limit: int, cursor: str | None) -> Page[User]:
        """The users after `cursor`, by id. Raises InvalidInput for a malformed cursor."""
        query = _user.where(users.c.id > pagination.after_id(cursor)).order_by(users.c.id).limit(limit + 1)
        found = [User(*row) for row in await self._database.read(lambda session: session.execute(query))]
        return pagination.cut(found, limit, lambda user: user.id)

    async def add(self, *, name: str, email: str, created_at: datetime, request_key: str | None = None) -> User:
        """Add a user; or return the one whom the same request has added. Raises EmailTaken."""
        values = {"name": name, "email": email, "created_at": created_at, "request_key": request_key}
        try:
            user_id = await self._database.transact(
                lambda session: changes.new_id(session, insert(users).values(values))
            )
        except Duplicate as error:
            known = None if request_key is None else await self._added_by(request_key)
            if known is None:
                raise _taken(email) from error
            return known
        return User(id=user_id, name=name, email=email, created_at=created_at)

    async def _added_by(self, request_key: str) -> User | None:
        query = _user.where(users.c.request_key == request_key)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return User(*row) if row else None

    async def change(self, user_id: int, new: Mapping[str, str], *, expected: Expected = None) -> User | None:
        """Change the columns that `new` names; None if there is no such user. Raises EmailTaken, PreconditionFailed."""
        this = users.c.id == user_id
        new_values = {**new, "version": users.c.version + 1}
        statement = update(users).where(this, versions.among(users.c.version, expected)).values(new_values)

        async def work(session: AsyncSession) -> User | None:
            changed = await changes.count(session, statement)
            row = (await session.execute(_user.where(this))).one_or_none()
            if not changed:
                versions.missed(expected, there=row is not None)
            if not changed or row is None:
                return None
            await _tell(session, UserChanged(user_id=user_id, name=row.name))
            return User(*row)

        try:
            return await self._database.transact(work)
        except Duplicate as error:
            raise _taken(new["email"]) from error

    async def remove(self, user_id: int, *, expected: Expected = None) -> bool:
        """Whether there was such a user. Raises PreconditionFailed."""
        this = users.c.id == user_id
        statement = delete(users).where(this, versions.among(users.c.version, expected))

        async def work(session: AsyncSession) -> bool:
            if await changes.count(session, statement):
                await _tell(session, UserRemoved(user_id=user_id))
                return True
            versions.missed(expected, there=await session.scalar(select(users.c.id).where(this)) is not None)
            return False

        return await self._database.transact(work)

    async def fill(self, people: Sequence[User]) -> None:
        """Put `people` into an empty table, with their ids; a table with anybody in it is left alone."""
        rows = [{"id": p.id, "name": p.name, "email": p.email, "created_at": p.created_at} for p in people]

        async def work(session: AsyncSession) -> None:
            if (await session.execute(select(users.c.id).limit(1))).first() is None:
                await session.execute(insert(users), rows)
                await changes.count_on(session, users.c.id)

        try:
            await self._database.transact(work)
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
