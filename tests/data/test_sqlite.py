from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from app.data import Database
from app.data.sqlite import Connection, connect
from tests.data.databases import SETTINGS


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    connection = connect(str(tmp_path / "tea.sqlite3"), timeout=5.0, isolation_level="IMMEDIATE")
    async with connection:
        await connection.cursor().execute("CREATE TABLE teas (id INTEGER PRIMARY KEY, name TEXT)")
        yield connection


async def test_a_cursor_holds_everything_once_it_is_executed(connection: Connection) -> None:
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO teas (name) VALUES (?)", [("assam",), ("sencha",), ("gyokuro",)])
    assert (cursor.rowcount, cursor.description) == (3, None)
    await cursor.execute("SELECT id, name FROM teas ORDER BY id")
    assert [column[0] for column in cursor.description] == ["id", "name"]
    assert await cursor.fetchone() == (1, "assam")
    assert await cursor.fetchmany(1) == [(2, "sencha")]
    assert await cursor.fetchall() == [(3, "gyokuro")]
    assert await cursor.fetchone() is None
    assert await cursor.fetchall() == []


async def test_a_statement_that_returns_rows_also_counts_them(connection: Connection) -> None:
    cursor = connection.cursor()
    await cursor.execute("INSERT INTO teas (name) VALUES (?), (?) RETURNING id", ("assam", "sencha"))
    assert await cursor.fetchall() == [(1,), (2,)]
    assert (cursor.rowcount, cursor.lastrowid) == (2, 2)


async def test_a_rollback_undoes_and_a_commit_keeps(connection: Connection) -> None:
    cursor = connection.cursor()
    await cursor.execute("INSERT INTO teas (name) VALUES ('assam')")
    await connection.rollback()
    await cursor.execute("INSERT INTO teas (name) VALUES ('sencha')")
    await connection.commit()
    await connection.rollback()
    await cursor.execute("SELECT name FROM teas")
    assert await cursor.fetchall() == [("sencha",)]
    assert not connection.in_transaction


async def test_an_error_comes_as_sqlite_raises_it_and_the_connection_stays_usable(connection: Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nonsense"):
        await connection.cursor().execute("SELECT nonsense")
    cursor = connection.cursor()
    await cursor.execute("SELECT 1")
    assert await cursor.fetchall() == [(1,)]


async def test_rows_can_be_streamed(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'tea.sqlite3'}", SETTINGS)
    numbers = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n"
    async with database.reading() as session:
        rows = await session.stream(text(numbers))
        assert [row.i async for row in rows] == list(range(1, 501))
    await database.close()


async def test_a_new_file_that_another_process_is_writing_can_be_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "new.sqlite3")
    # As another process does that migrates a file which is not yet in WAL mode.
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE teas (id INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    opening = asyncio.create_task(_opened(path))
    done, _ = await asyncio.wait({opening}, timeout=0.1)
    assert not done, "it waits, where SQLite by itself would fail at once"
    other.execute("COMMIT")
    other.close()
    assert await opening == "wal"


async def _opened(path: str) -> str:
    connection = connect(path, timeout=30.0)
    async with connection:
        cursor = connection.cursor()
        await cursor.execute("PRAGMA journal_mode")
        row = await cursor.fetchone()
        return str(row[0])


def test_what_is_given_up_while_it_is_opened_is_over_when_the_database_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before, failures = tmp_path / "new.sqlite3", set(threading.enumerate()), list[threading.ExceptHookArgs]()
    monkeypatch.setattr(threading, "excepthook", failures.append)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE teas (id INTEGER)")
    other.execute("BEGIN IMMEDIATE")
    asyncio.run(_give_up_opening(path))
    # The loop is closed: a thread that still wanted to tell it something would fail.
    for thread in set(threading.enumerate()) - before:
        thread.join()
    other.close()
    assert failures == []


async def _give_up_opening(path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{path}", SETTINGS)
    reading = asyncio.create_task(database.read(lambda session: session.scalar(text("SELECT 1"))))
    done, _ = await asyncio.wait({reading}, timeout=0.1)
    assert not done
    reading.cancel()
    await asyncio.wait({reading})
    await database.close()
