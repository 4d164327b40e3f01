"""A fresh database for each test of a service, cheaply: each is made once, and then put back as it was.

    SQLite              a file, copied
    PostgreSQL, MySQL   a database of each service, and beside it a copy of its demo data: whatever a test has left is
                        deleted, and the copy's rows come back. (CREATE DATABASE … TEMPLATE and DROP take ten times as
                        long, where they write through to a disk.)

All of it is done by a thread with an event loop of its own: the test's is not to be touched.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app import service, settings
from app.data import Database, migrations
from app.service import Service
from tests.data import databases

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Template(Protocol):
    """The database of one service, which one test at a time has for itself."""

    def fresh(self, folder: Path, *, seeded: bool) -> str:
        """Its URL, with the service's tables, and with its demo data if `seeded`.

        Args:
            folder: the test's own, for what is a file.
        """
        ...


Templates = Callable[[str], Template]


def of(place: Path | str) -> Iterator[Templates]:
    """Gives the template of a service by its name, made when it is first asked for.

    Args:
        place: a folder for SQLite; the URL of a server.
    """
    with ExitStack() as stack:
        run: Run = stack.enter_context(_own_loop())

        @functools.cache
        def made(name: str) -> Template:
            this = service.load(name)
            if isinstance(place, Path):
                return Files(this, place, run)
            kind = KeptByPostgres if place.startswith("postgresql") else KeptByMySQL
            return stack.enter_context(kind(this, stack.enter_context(databases.fresh(place)), run))

        yield made


# ------------------------------------------------------------------------------------------------------------ SQLite


class Files:
    """Two files, of which each test gets a copy."""

    def __init__(self, this: Service, folder: Path, run: Run) -> None:
        self._file, self._folder = f"{this.name}.sqlite3", folder
        for seeded in (False, True):
            self._place(seeded=seeded).mkdir(exist_ok=True)
            run(_prepare(this, self._url(self._place(seeded=seeded)), seeded=seeded))

    def fresh(self, folder: Path, *, seeded: bool) -> str:
        shutil.copy(self._place(seeded=seeded) / self._file, folder)
        return self._url(folder)

    def _place(self, *, seeded: bool) -> Path:
        return self._folder / ("seeded" if seeded else "blank")

    def _url(self, folder: Path) -> str:
        return f"sqlite+aiosqlite:///{folder / self._file}"


# ------------------------------------------------------------------------------------------------------------ servers


class Kept(ABC):
    """A database of a server, which is put back: what its tables hold is deleted, and what was kept comes in its place."""

    def __init__(self, this: Service, url: str, run: Run) -> None:
        assert this.models is not None
        self.tables = [table.name for table in this.models.sorted_tables]
        self._service, self._url, self._run = this, url, run
        self._engine = create_async_engine(url, pool_size=1, max_overflow=0)

    def fresh(self, folder: Path, *, seeded: bool) -> str:
        self._run(self._transact(lambda connection: self.put_back(connection, seeded=seeded)))
        return self._url

    def __enter__(self) -> Self:
        self._run(_prepare(self._service, self._url, seeded=True))
        self._run(self._transact(self.keep))
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._engine.dispose())

    @abstractmethod
    def keep(self, connection: Connection) -> None: ...

    @abstractmethod
    def put_back(self, connection: Connection, *, seeded: bool) -> None: ...

    def emptying(self) -> list[str]:
        return [f"DELETE FROM {table}" for table in reversed(self.tables)]

    def filling(self, kept: str) -> list[str]:
        return [f"INSERT INTO {table} SELECT * FROM {kept}{table}" for table in self.tables]

    async def _transact(self, work: Callable[[Connection], None]) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(work)


class KeptByPostgres(Kept):
    """The copy is a schema; sequences go back, too."""

    def keep(self, connection: Connection) -> None:
        run = connection.exec_driver_sql
        run("CREATE SCHEMA kept")
        for table in self.tables:
            run(f"CREATE TABLE kept.{table} AS TABLE {table}")
        rows = run("SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'").all()
        self._blank = [f"PERFORM setval('{name}', 1, false)" for name, _ in rows]
        self._seeded = [f"PERFORM setval('{name}', {last})" for name, last in rows if last is not None]
        # What the services of the tests commit may be lost with the machine.
        run(f"ALTER DATABASE {connection.engine.url.database} SET synchronous_commit = off")

    def put_back(self, connection: Connection, *, seeded: bool) -> None:
        careless = ["SET LOCAL synchronous_commit = off", "SET LOCAL lock_timeout = '10s'"]
        filled = [*self.filling("kept."), *self._seeded] if seeded else []
        statements = [*careless, *self.emptying(), *self._blank, *filled]
        connection.exec_driver_sql(f"DO $$ BEGIN {'; '.join(statements)}; END $$")


class KeptByMySQL(Kept):
    """The copy lies beside each table; where rows were numbered, they are numbered anew."""

    def keep(self, connection: Connection) -> None:
        for table in self.tables:
            connection.exec_driver_sql(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")
        self._next = self._numbers(connection)

    def put_back(self, connection: Connection, *, seeded: bool) -> None:
        for statement in self.emptying():
            connection.exec_driver_sql(statement)
        for table, number in self._numbers(connection).items():
            wanted = self._next[table] if seeded else 1
            # It ends the transaction, and takes longer than all the others.
            if number != wanted:
                connection.exec_driver_sql(f"ALTER TABLE {table} AUTO_INCREMENT = {wanted}")
        for statement in self.filling("kept_") if seeded else ():
            connection.exec_driver_sql(statement)

    def _numbers(self, connection: Connection) -> dict[str, int]:
        """The next number of each table that numbers its rows."""
        connection.exec_driver_sql("SET @asked = 1/*!80000 , information_schema_stats_expiry = 0 */")
        rows = connection.exec_driver_sql(
            "SELECT table_name, auto_increment FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND auto_increment IS NOT NULL"
        )
        return {str(name): int(number) for name, number in rows}


async def _prepare(this: Service, url: str, *, seeded: bool) -> None:
    await migrations.upgrade(this, url)
    if not seeded or this.seed is None:
        return
    database = Database(url, databases.SETTINGS)
    await this.seed(database, settings.load(database_url=url))
    # The last connection to go writes everything into SQLite's one file.
    await database.close()


@contextmanager
def _own_loop() -> Iterator[Run]:
    runner = asyncio.Runner()
    with ThreadPoolExecutor(max_workers=1) as thread:
        yield lambda work: thread.submit(runner.run, work).result()
        thread.submit(runner.close).result()
