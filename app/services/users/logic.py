"""The rules of users. An e-mail address belongs to one user; upper and lower case in it do not differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.data import versions
from app.data.versions import Expected
from app.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class User:
    """`version` counts the changes."""

    id: int
    name: str
    email: str
    created_at: datetime
    version: int = 1


class EmailTaken(Conflict):
    """Another user has this e-mail address."""

    code, title = "email_taken", "E-mail address taken"


class Users(Protocol):
    """Where users are kept. `add` and `change` raise EmailTaken.

    What a request has added, `add` returns when it comes again: `request_key` is its name, and no other's.
    `change` and `remove` raise PreconditionFailed if the user's version is none of `expected`.
    """

    async def find(self, user_id: int) -> User | None: ...
    async def add(self, *, name: str, email: str, created_at: datetime, request_key: str | None = None) -> User: ...
    async def change(self, user_id: int, new: Mapping[str, str], *, expected: Expected = None) -> User | None: ...
    async def remove(self, user_id: int, *, expected: Expected = None) -> bool: ...


async def read(user_id: int, users: Users) -> User:
    return _found(user_id, await users.find(user_id))


async def register(users: Users, *, name: str, email: str, now: datetime, request_key: str | None = None) -> User:
    return await users.add(name=name, email=email, created_at=now, request_key=request_key)


async def change(user_id: int, changes: Mapping[str, str], users: Users, *, expected: Expected = None) -> User:
    """Change what `changes` names (``name``, ``email``) and leave the rest.

    Raises: NotFound, EmailTaken, PreconditionFailed.
    """
    if changes:
        return _found(user_id, await users.change(user_id, changes, expected=expected))
    user = await read(user_id, users)
    versions.check(user.version, expected)
    return user


async def remove(user_id: int, users: Users, *, expected: Expected = None) -> None:
    """Raises: NotFound, PreconditionFailed."""
    if not await users.remove(user_id, expected=expected):
        raise _unknown(user_id)


def _found(user_id: int, user: User | None) -> User:
    if user is None:
        raise _unknown(user_id)
    return user


def _unknown(user_id: int) -> NotFound:
    return NotFound(f"There is no user {user_id}")
