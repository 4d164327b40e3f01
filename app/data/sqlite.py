"""aiosqlite with one trip to its thread per statement.

aiosqlite makes a trip for each of: cursor, execute, fetchall, close; and SQLAlchemy adds a rollback after every read. A
trip costs more than a small query does, so a statement does all of it in one.
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

_BUSY_SECONDS = 0.01


def connect(path: str, **options: Any) -> Connection:
    """An awaitable connection in WAL mode, as ``aiosqlite.connect`` gives it; takes what ``sqlite3.connect`` takes."""
    connection = Connection(partial(_open, path, **options), iter_chunk_size=64)
    # A process that ends in a hurry must not wait for it. (Before aiosqlite 0.22 the connection was the thread.)
    thread: Any = getattr(connection, "_thread", connection)
    thread.daemon = True
    return connection


class Connection(aiosqlite.Connection):
    """A connection that goes to its thread only if there is something to do."""

    # Whether the thread may still be at work on something that nobody waits for any more.
    _abandoned = False

    def cursor(self) -> Cursor:  # type: ignore[override]  # there is nothing to wait for
        return Cursor(self)

    async def commit(self) -> None:
        if self._abandoned or self._conn.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        if self._abandoned or self._conn.in_transaction:
            await super().rollback()

    async def run(self, fill: Callable[[sqlite3.Cursor], None]) -> None:
        """Call `fill` with a cursor, in the connection's thread."""
        try:
            await self._execute(_with_cursor, self._conn, fill)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            self._abandoned = True
            raise


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


def _open(path: str, *, timeout: float = 5.0, **options: Any) -> sqlite3.Connection:
    """Runs in the connection's thread, where it may sleep."""
    connection: sqlite3.Connection = sqlite3.connect(path, timeout=timeout, **options)
    give_up = time.monotonic() + timeout
    while True:
        try:
            # Readers and the writer do not stop each other.
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait here, whatever the timeout: processes that start at once on a new file collide.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                connection.close()
                raise
            time.sleep(_BUSY_SECONDS)
        else:
            return connection


def _with_cursor(connection: sqlite3.Connection, fill: Callable[[sqlite3.Cursor], None]) -> None:
    cursor = connection.cursor()
    try:
        fill(cursor)
    finally:
        cursor.close()
