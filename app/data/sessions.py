"""Sessions on one server: bound by the request's deadline, their errors translated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import bounds, faults, pool
from app.data.faults import Lost
from app.data.pool import Pool, Watch
from app.errors import DeadlineExceeded, Unavailable


class Sessions:
    """What is said to one server."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        # SQLite has one writer at a time. Inside the process they queue here, in order and awake: its own busy handler
        # sleeps and is unfair.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if pool.backend == "sqlite" else nullcontext()

    def __repr__(self) -> str:
        return f"<Sessions {self.pool}>"

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """One that reads, outside of any transaction where there is a choice."""
        async with _translated(), self.pool.open_reader() as session:
            yield session

    @asynccontextmanager
    async def writing(self, watch: Watch | None = None) -> AsyncIterator[AsyncSession]:
        """One transaction; `watch` notes how far it comes."""
        watch = watch or Watch(self.pool)
        try:
            with pool.watching(watch):
                async with _translated(), self._turn, self.pool.open_writer() as session, session.begin():
                    yield session
                    watch.committing = True
        except Lost as error:
            if not watch.committing:
                raise
            detail = "The database was lost while it was to keep a change: whether it did is not known"
            raise Lost(detail, retry_after=error.retry_after) from error


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        with bounds.in_time():
            yield
    except (SQLAlchemyError, OSError) as error:
        translation = faults.translate(error)
        if translation is None:
            raise
        if isinstance(translation, Unavailable) and bounds.is_over():
            raise DeadlineExceeded("The time for the database ran out") from error
        raise translation from error
