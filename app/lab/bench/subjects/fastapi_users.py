"""FastAPI that reads a user with SQLAlchemy and asyncpg, as its documentation has it: a session per request."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import BigInteger, String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Its tables."""


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))


class Profile(BaseModel):
    id: int
    name: str


engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10, max_overflow=10)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened


async def find(user_id: int, database: AsyncSession) -> Profile:
    """The user. Raises: HTTPException: there is none."""
    user = await database.get(User, user_id)
    if user is None:
        raise HTTPException(404)
    return Profile(id=user.id, name=user.name)


def make(url: str) -> Any:
    app = FastAPI(title="lab")

    async def read(user_id: int, database: Annotated[AsyncSession, Depends(session)]) -> Profile:
        return await find(user_id, database)

    app.add_api_route("/users/{user_id}", read, methods=["GET"])
    return app
