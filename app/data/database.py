"""One database of one process: a bounded pool, and sessions that are one transaction each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import URL, event, text
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from app.data import backends, faults
from app.data.faults import Contended
from app.settings import DataSettings

_T = TypeVar("_T")

# A connection that lay idle for longer than this is pinged before it is used; a busy one never is.
IDLE_SECONDS = 5.0
# Firewalls and MySQL's wait_timeout end old connections silently.
RECYCLE_SECONDS = 1800
ATTEMPTS = 3


class Database:
    """A pool of connections to `url`, opened as they are needed.

    Args:
        url: ``sqlite+aiosqlite:///path``, ``postgresql+asyncpg://…``, ``mysql+aiomysql://…`` or ``mysql+asyncmy://…``.
        settings: the bounds of the pool and of one statement.
        clock: monotonic seconds.

    Raises:
        Misconfigured: the URL or its driver is wrong; the message holds no password.
    """

    def __init__(self, url: str, settings: DataSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        parsed = backends.parse(url)
        self.url_without_password = backends.describe(parsed)
        self._engine = _open_pool(parsed, settings, clock)
        backend = parsed.get_backend_name()
        # SQLite has one writer at a time. Inside the process they queue here, in order and awake: its own busy handler
        # sleeps and is unfair.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if backend == "sqlite" else nullcontext()
        self._writing = async_sessionmaker(self._engine, expire_on_commit=False)
        reader = self._engine.execution_options(**backends.READING[backend])
        self._reading = async_sessionmaker(reader, expire_on_commit=False)
        self._committed: list[Callable[[Mapping[Any, Any]], object]] = []

    def __repr__(self) -> str:
        return f"<Database {self.url_without_password} {self._engine.pool.status()}>"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One transaction: commits when the block ends, rolls back when it raises. Never call a peer inside it.

        Raises:
            Duplicate, StillReferenced: a constraint forbids the change.
            Contended: a deadlock or a lock that did not come free.
            Unavailable: the database is away, or no connection came free in time.
        """
        async with _translated(), self._turn, self._writing() as session:
            async with session.begin():
                yield session
            for listener in self._committed if session.info else ():
                listener(session.info)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session for SELECT alone: it waits for no writer, and each statement sees what is committed by then."""
        async with _translated(), self._reading() as session:
            yield session

    def on_commit(self, listener: Callable[[Mapping[Any, Any]], object]) -> None:
        """Call `listener` after each commit of a session in whose ``info`` somebody has left something, with that."""
        self._committed.append(listener)

    async def transact(self, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        """Run `work` in one transaction, and again from the start if other transactions stood in its way.

        `work` must do nothing but SQL. Raises what `session` raises.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._once(work)
            except Contended:
                continue
        return await self._once(work)

    async def _once(self, work: Callable[[AsyncSession], Awaitable[_T]]) -> _T:
        async with self.session() as session:
            return await work(session)

    async def ping(self) -> None:
        """Ask the database for a sign of life. Raises Unavailable."""
        async with self.reading() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self._engine.dispose()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        translation = faults.translate(error)
        if translation is None:
            raise
        raise translation from error


def _open_pool(url: URL, settings: DataSettings, clock: Callable[[], float]) -> AsyncEngine:
    engine = backends.open_engine(
        url,
        settings,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.statement_timeout_seconds,
        pool_recycle=RECYCLE_SECONDS,
        pool_use_lifo=True,
        # Parameters may be personal data; they have no place in an error or a log.
        hide_parameters=True,
    )
    if url.get_backend_name() != "sqlite":
        _ping_the_idle(engine, clock)
    return engine


def _ping_the_idle(engine: AsyncEngine, clock: Callable[[], float]) -> None:
    """Like SQLAlchemy's pre-ping, without its round trip on every use: a restarted database costs no request."""

    def rest(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = clock()

    def wake(connection: Any, record: Any, _proxy: Any) -> None:
        now = clock()
        if now - record.info.pop("idle_since", now) < IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except (engine.dialect.loaded_dbapi.Error, OSError) as error:
            # The others have most likely died with it: they are all replaced as they come up.
            raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkin", rest)
    event.listen(engine.sync_engine, "checkout", wake)
