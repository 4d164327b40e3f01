"""Demo users: ``GET /users/7`` of every tutorial is User7."""

from __future__ import annotations

from datetime import UTC, datetime

from app.data import Database
from app.services.users.logic import User
from app.services.users.repository import UserRepository
from app.settings import Settings

COUNT = 100
_BORN = datetime(2026, 1, 1, tzinfo=UTC)


async def seed(database: Database, _: Settings) -> None:
    """Put User1 … User100 into an empty database."""
    people = [User(n, f"User{n}", f"user{n}@example.com", _BORN) for n in range(1, COUNT + 1)]
    await UserRepository(database).fill(people)
