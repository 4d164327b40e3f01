"""Every revision of every service, forth and back, on every database: whatever revisions there will be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, MetaData, Table, select, types

from app import service
from app.data import Database, migrations
from app.data.migrations import BASE
from app.service import Service
from tests.data.databases import SETTINGS

ROOT = Path(__file__).parents[2]
NAMES = [name for name in service.discover() if service.load(name).models is not None]
Keys = dict[str, list[Any]]


async def ask(url: str, question: Any, *arguments: Any) -> Any:
    """What `question` makes of a connection, in a transaction of its own."""
    database = Database(url, SETTINGS)
    async with database.session() as session:
        answer = await (await session.connection()).run_sync(question, *arguments)
    await database.close()
    return answer


def drift(connection: Connection, service: Service) -> list[object]:
    """In what the database differs from the models."""
    assert service.models is not None
    ours = service.models.tables
    options = {
        "include_name": lambda name, kind, _: kind != "table" or name in ours,
        "compare_type": True,
        "compare_server_default": True,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), service.models))


def tables_of(connection: Connection, service: Service) -> list[Table]:
    """The tables that are there, in an order in which they can be filled."""
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: name != migrations.version_table(service))
    return metadata.sorted_tables


def fill(connection: Connection, service: Service) -> Keys:
    """Put two rows into each table that has none, and return the keys of all."""
    for table in tables_of(connection, service):
        if connection.execute(select(table)).first() is None:
            rows = [{column.name: value(column, number) for column in table.columns} for number in (1, 2)]
            connection.execute(table.insert(), rows)
    return keys(connection, service)


def value(column: Column[Any], number: int) -> object:
    """A value of the column's type: the same for the same number, so that rows find those that they refer to."""
    kind = column.type
    if isinstance(kind, types.JSON):
        return {"number": number}
    if isinstance(kind, types.Boolean):
        return number == 1
    if isinstance(kind, types.Integer | types.Numeric):
        return number
    if isinstance(kind, types.DateTime):
        return datetime(2026, 1, number, tzinfo=UTC if kind.timezone else None)
    return str(number).encode() if isinstance(kind, types.LargeBinary) else str(number)


def keys(connection: Connection, service: Service) -> Keys:
    return {
        table.name: sorted(map(tuple, connection.execute(select(*table.primary_key))))
        for table in tables_of(connection, service)
    }


def without(before: Keys, after: Keys) -> Keys:
    """The rows that have gone, of the tables that are still there."""
    return {
        name: gone
        for name in before.keys() & after.keys()
        if (gone := [k for k in before[name] if k not in after[name]])
    }


@pytest.mark.parametrize("name", NAMES)
async def test_from_every_revision_with_rows_the_newest_is_reached(name: str, database_url: str) -> None:
    this = service.load(name)
    known = (await migrations.upgrade(this, database_url)).known
    assert await ask(database_url, drift, this) == []
    for start in (BASE, *known[:-1]):
        await migrations.downgrade(this, database_url, to=start)
        before = await ask(database_url, fill, this)
        await migrations.upgrade(this, database_url)
        assert await ask(database_url, drift, this) == []
        assert without(before, await ask(database_url, keys, this)) == {}


@pytest.mark.parametrize("name", NAMES)
async def test_from_the_newest_revision_with_rows_every_one_before_is_reached_and_the_newest_again(
    name: str, database_url: str
) -> None:
    this = service.load(name)
    known = (await migrations.upgrade(this, database_url)).known
    for _ in known:
        before = await ask(database_url, fill, this)
        await migrations.downgrade(this, database_url)
        assert without(before, await ask(database_url, keys, this)) == {}
    assert await ask(database_url, keys, this) == {}
    await migrations.upgrade(this, database_url)
    assert await ask(database_url, drift, this) == []


# Does what it is told, line by line; the processes are told at the same time.
OPERATOR = """
import sys
from app.cli.main import main

print("done", flush=True)
for line in sys.stdin:
    try:
        main(line.split())
    except SystemExit as ended:
        assert not ended.code, ended.code
    print("done", flush=True)
"""


@contextmanager
def operators(url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes with a `mesh` each."""
    command, pipe = [sys.executable, "-c", OPERATOR], subprocess.PIPE
    environment = {**os.environ, "DATABASE_URL": url}
    with (
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as one,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as two,
    ):
        both = [one, two]
        assert [heard(each) for each in both] == [[], []]
        yield both
        for each in both:
            assert each.stdin is not None
            each.stdin.close()
        assert [each.wait(30) for each in both] == [0, 0]


def heard(operator: subprocess.Popen[str]) -> list[str]:
    """What it says until it is done."""
    assert operator.stdout is not None
    said = []
    while (line := operator.stdout.readline()) != "done\n":
        assert line, f"it ended with {operator.wait()}"
        said.append(line.strip())
    return said


def at_once(operators: Sequence[subprocess.Popen[str]], command: str) -> list[str]:
    """What they say who run `command` at the same time."""
    for each in operators:
        assert each.stdin is not None
        each.stdin.write(f"{command}\n")
        each.stdin.flush()
    return [line for each in operators for line in heard(each)]


def told(said: Sequence[str], what: str) -> dict[str, int]:
    """How many of the processes say it of a service."""
    return {name: sum(line.startswith(f"{name}: {what}") for line in said) for name in NAMES}


# The locks themselves are tried on every database in tests/data/test_migrations.py.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_processes_that_migrate_at_once_do_it_once_and_back_once(database_url: str) -> None:
    once = dict.fromkeys(NAMES, 1)
    with operators(database_url) as both:
        up = at_once(both, "db upgrade --all")
        assert told(up, "now at") == told(up, "up to date at") == once
        back = at_once(both, "db downgrade --all --to base")
        assert told(back, "now at nothing") == told(back, "stays at nothing") == once
