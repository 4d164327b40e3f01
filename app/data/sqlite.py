"""aiosqlite with one trip to its thread per statement.

aiosqlite makes a trip for each of: cursor, execute, fetchall, close; and SQLAlchemy adds a rollback after every read. A
trip costs more than a small query does, so a statement does all of it in one.

And what nobody waits for any more is stopped: the thread is interrupted, instead of going on to the end. What is given
up has a thread still, which answers to its event loop: `settle` waits for it, lest the loop be gone by then.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

import aiosqlite

from app.data import bounds

_BUSY_SECONDS = 0.01
_INTERRUPT_AGAIN_SECONDS = 0.01

# The ends of connections, each of its own loop, that may be nobody else's concern any more.
_endings: set[asyncio.Future[Any]] = set()


def connect(path: str, **options: Any) -> Connection:
    """An awaitable connection in WAL mode, as ``aiosqlite.connect`` gives it; takes what ``sqlite3.connect`` takes."""
    connection = Connection(path, options)
    connection.busy_ms = connection.longest_ms = int(options.get("timeout", 5.0) * 1000)
    # A process that ends in a hurry must not wait for it. (Before aiosqlite 0.22 the connection was the thread.)
    thread: Any = getattr(connection, "_thread", connection)
    thread.daemon = True
    return connection


async def settle() -> None:
    """Wait until the connections that were given up within this event loop are closed."""
    loop = asyncio.get_running_loop()
    if mine := [ending for ending in _endings.copy() if ending.get_loop() is loop]:
        await asyncio.wait(mine)


class Connection(aiosqlite.Connection):
    """A connection that goes to its thread only if there is something to do."""

    # Whether the thread may still be at work on something that nobody waits for any more.
    _abandoned = False
    # How long it waits for another process's lock; at most, and at present.
    longest_ms = busy_ms = 5000

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        super().__init__(partial(self._open, path, **options), iter_chunk_size=64)

    def stop(self) -> asyncio.Future[Any] | None:
        ending: asyncio.Future[Any] | None = super().stop()
        if ending is not None:
            _endings.add(ending)
            ending.add_done_callback(_endings.discard)
        return ending

    def cursor(self) -> Cursor:  # type: ignore[override]  # there is nothing to wait for
        return Cursor(self)

    async def commit(self) -> None:
        if self._abandoned or self._conn.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        if self._abandoned or self._conn.in_transaction:
            await super().rollback()

    async def run(self, fill: Callable[[sqlite3.Cursor], None]) -> None:
        """Call `fill` with a cursor, in the connection's thread; it ends with who waits for it."""
        call = _Call(self, fill, self._patience_ms())
        try:
            await self._execute(call, self._conn)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            self._abandoned = True
            call.stop(self._conn, asyncio.get_running_loop())
            raise

    def _open(self, path: str, *, timeout: float = 5.0, **options: Any) -> sqlite3.Connection:
        """Runs in the connection's thread, where it may sleep."""
        connection: sqlite3.Connection = sqlite3.connect(path, timeout=timeout, **options)
        give_up = time.monotonic() + timeout
        while True:
            try:
                # Readers and the writer do not stop each other.
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                # SQLite does not wait here, whatever the timeout: processes that start at once on a new file collide.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or not self._running or time.monotonic() > give_up:
                    connection.close()
                    raise
                time.sleep(_BUSY_SECONDS)
            else:
                return connection

    def _patience_ms(self) -> int:
        seconds = bounds.left()
        return self.longest_ms if seconds * 1000 >= self.longest_ms else max(1, int(seconds * 1000))


class _Call:
    """What the thread is to do; it may be stopped before it begins, and at any moment after."""

    __slots__ = ("_busy_ms", "_connection", "_ended", "_fill", "_stopped")

    def __init__(self, connection: Connection, fill: Callable[[sqlite3.Cursor], None], busy_ms: int) -> None:
        self._connection, self._fill, self._busy_ms = connection, fill, busy_ms
        self._stopped = self._ended = False

    def __call__(self, connection: sqlite3.Connection) -> None:
        try:
            if not self._stopped:
                self._work(connection)
        finally:
            self._ended = True

    def _work(self, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        try:
            # Only where it may have to wait: within a transaction the lock is ours.
            if self._busy_ms != self._connection.busy_ms and not connection.in_transaction:
                cursor.execute(f"PRAGMA busy_timeout={self._busy_ms}")
                self._connection.busy_ms = self._busy_ms
            self._fill(cursor)
        finally:
            cursor.close()

    def stop(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._stopped = True
        if not self._ended:
            connection.interrupt()
            # Once more, lest it was about to begin: SQLite forgets an interruption that finds nothing to interrupt.
            loop.call_later(_INTERRUPT_AGAIN_SECONDS, self.stop, connection, loop)


class Cursor:
    """The part of a cursor that SQLAlchemy's adapter uses; it holds everything as soon as it is executed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> None:
        await self._connection.run(lambda cursor: self._fill(cursor.execute(sql, parameters)))  # type: ignore[arg-type]

    async def executemany(self, sql: str, parameters: Iterable[Any]) -> None:
        await self._connection.run(lambda cursor: self._fill(cursor.executemany(sql, parameters)))

    def _fill(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        if cursor.description is not None:
            self._rows = deque(cursor.fetchall())
        # Only now: a statement with RETURNING counts while it is read.
        self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid

    async def fetchall(self) -> list[Any]:
        return await self.fetchmany(len(self._rows))

    async def fetchmany(self, size: int = 1) -> list[Any]:
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    async def fetchone(self) -> Any:
        return self._rows.popleft() if self._rows else None

    async def close(self) -> None:
        self._rows.clear()
