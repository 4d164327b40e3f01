"""The connections to one server: opened as they are needed, replaced when they die, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection

from app.data import backends, bounds
from app.settings import DataSettings

# A connection that lay idle for longer than this is pinged before it is used; a busy one never is.
IDLE_SECONDS = 5.0
# Firewalls and MySQL's wait_timeout end old connections silently.
RECYCLE_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Figures:
    """How a pool stands.

    Args:
        limit: so many connections at most.
        checked_out: those in use or being opened; `idle`: those that wait for work.
        overflow: those beyond the size that is kept.
        waiting: who waits for a connection, or for one to be opened.
        opened: connections opened so far; `lost`: those found broken.
    """

    limit: int
    checked_out: int
    idle: int
    overflow: int
    waiting: int
    opened: int
    lost: int


class Pool:
    """A bounded pool, and sessions on it.

    Args:
        url: as `backends.parse` gives it.
        settings: the bounds of the pool and of one statement.
        clock: monotonic seconds.
    """

    def __init__(self, url: URL, settings: DataSettings, clock: Callable[[], float]) -> None:
        self.url_without_password = backends.describe(url)
        self.opened = self.lost = 0
        # When the server last answered a statement.
        self.answered_at = float("-inf")
        self._limit = settings.pool_size + settings.pool_overflow
        self._clock = clock
        self._engine = _open(url, settings)
        self.backend = url.get_backend_name()
        self._listen()
        self.open_writer = async_sessionmaker(self._engine, expire_on_commit=False)
        reader = self._engine.execution_options(**backends.READING[self.backend])
        self.open_reader = async_sessionmaker(reader, expire_on_commit=False)

    def __repr__(self) -> str:
        return f"<Pool {self}>"

    def __str__(self) -> str:
        """As in ``sqlite+aiosqlite:////tea.sqlite3, 3 of 20 connections in use``."""
        now = self.figures()
        return f"{self.url_without_password}, {now.checked_out} of {now.limit} connections in use"

    def figures(self) -> Figures:
        queue = self._queue
        return Figures(
            limit=self._limit,
            checked_out=queue.checkedout(),
            idle=queue.checkedin(),
            overflow=max(0, queue.overflow()),
            waiting=queue.waiting,
            opened=self.opened,
            lost=self.lost,
        )

    def describe(self) -> dict[str, Any]:
        """Plain facts for the management view."""
        return {"url": self.url_without_password, **asdict(self.figures())}

    async def close(self) -> None:
        await backends.close_engine(self._engine)

    @property
    def _queue(self) -> _Queue:
        queue = self._engine.pool
        assert isinstance(queue, _Queue)  # noqa: S101  # `_open` has said so
        return queue

    # ------------------------------------------------------------------------------------- what SQLAlchemy tells

    def _listen(self) -> None:
        engine = self._engine.sync_engine
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "invalidate", self._invalidated)
        event.listen(engine, "after_cursor_execute", self._answered)
        if self.backend != "sqlite":
            event.listen(engine, "handle_error", self._failed)
            event.listen(engine, "checkin", self._rested)
            event.listen(engine, "checkout", self._woken)

    def _connected(self, _connection: object, _record: object) -> None:
        self.opened += 1

    def _invalidated(self, _connection: object, _record: object, error: BaseException | None) -> None:
        # One that is given up with its request is no loss.
        if isinstance(error, Exception):
            self.lost += 1

    def _answered(self, *_: object) -> None:
        self.answered_at = self._clock()
        watch = _watch.get()
        if watch is not None and watch.pool is self:
            watch.answered = True

    def _failed(self, failure: ExceptionContext) -> None:
        error, connection = failure.original_exception, failure.connection
        if isinstance(error, TimeoutError) and bounds.is_over() and connection is not None:
            # The request's end, not the server's: the driver has cancelled the statement, and can go on. To open as
            # many connections as requests end would be a load that comes when there is too much of it already.
            failure.is_disconnect = False
            connection.info[_UNSURE] = True

    def _rested(self, _connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = self._clock()

    def _woken(self, connection: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        """Like SQLAlchemy's pre-ping, without its round trip on every use: a restarted database costs no request."""
        since, unsure = record.info.pop(_IDLE_SINCE, None), record.info.pop(_UNSURE, False)
        if since is None:
            # It is new.
            return
        if backends.is_closed(connection.driver_connection):
            raise DisconnectionError
        if unsure or self._clock() - since >= IDLE_SECONDS:
            self._ping(connection)

    def _ping(self, connection: Any) -> None:
        dialect = self._engine.dialect
        try:
            dialect.do_ping(connection)
        except (dialect.loaded_dbapi.Error, OSError) as error:
            # The others have most likely died with it: they are all replaced as they come up.
            raise InvalidatePoolError from error


_IDLE_SINCE = "idle_since"
# A call on it was cut short: whether the server is still there is not known.
_UNSURE = "unsure"


class Watch:
    """How far a transaction on `pool` has come."""

    __slots__ = ("answered", "committing", "pool")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.answered = False
        self.committing = False


_watch: ContextVar[Watch | None] = ContextVar("app.data.watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Note in `watch` whether any statement of the block was answered."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


class _Queue(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool, and how many wait for it."""

    # Its log goes by the name of its module: to SQLAlchemy's, which is silent unless something is wrong.
    __module__ = AsyncAdaptedQueuePool.__module__

    waiting = 0

    def connect(self) -> PoolProxiedConnection:
        self.waiting += 1
        try:
            return super().connect()
        finally:
            self.waiting -= 1


def _open(url: URL, settings: DataSettings) -> AsyncEngine:
    return backends.open_engine(
        url,
        settings,
        poolclass=_Queue,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.statement_timeout_seconds,
        pool_recycle=RECYCLE_SECONDS,
        pool_use_lifo=True,
        # Parameters may be personal data; they have no place in an error or a log.
        hide_parameters=True,
    )
