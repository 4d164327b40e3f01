"""A PostgreSQL for the bench: ``POSTGRES_URL``, else the local one; a fresh database in it for the length of a block."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

_LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"


@asynccontextmanager
async def postgresql() -> AsyncIterator[str | None]:
    """The URL of an empty database, dropped afterwards; None if no PostgreSQL answers."""
    server = make_url(os.environ.get("POSTGRES_URL") or _LOCAL).set(drivername="postgresql+asyncpg")
    name = f"mesh_bench_{secrets.token_hex(6)}"
    try:
        await _tell(server, f"CREATE DATABASE {name}")
    except (SQLAlchemyError, OSError):
        yield None
        return
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        await _tell(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _tell(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text(statement))
    finally:
        await engine.dispose()
