from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from app import service
from app.data import Database, migrations
from app.service import Service
from tests.data.databases import SETTINGS

NAMES = [name for name in service.discover() if service.load(name).models is not None]


def drift(connection: Connection, service: Service) -> list[object]:
    assert service.models is not None
    ours = service.models.tables
    options = {
        "include_name": lambda name, kind, _: kind != "table" or name in ours,
        "compare_type": True,
        "compare_server_default": True,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), service.models))


@pytest.mark.parametrize("name", NAMES)
async def test_the_revisions_build_what_the_models_describe(name: str, database_url: str) -> None:
    this = service.load(name)
    assert (await migrations.upgrade(this, database_url)).pending
    database = Database(database_url, SETTINGS)
    async with database.reading() as session:
        found = await (await session.connection()).run_sync(drift, this)
    await database.close()
    assert found == []


async def test_all_services_fit_into_one_database(database_url: str) -> None:
    for name in NAMES:
        await migrations.upgrade(service.load(name), database_url)
    for name in NAMES:
        assert (await migrations.status(service.load(name), database_url)).pending == ()


# A table of each service, and how a row comes into it before its revision 0002.
ROWS = {
    "users": ("users", "INSERT INTO users (name, email, created_at) VALUES ('Ada', '{n}@example.com', '{moment}')"),
    "inventory": (
        "inventory_items",
        "INSERT INTO inventory_items (sku, name, available) VALUES ('pot-{n}', 'A pot', 1)",
    ),
    "orders": (
        "orders",
        "INSERT INTO orders (user_id, state, reference, created_at) VALUES (7, 'confirmed', 'r{n}', '{moment}')",
    ),
}


def revision(service: Service, number: str) -> Any:
    assert service.migrations is not None
    (file,) = Path(service.migrations).glob(f"{number}_*.py")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(connection: Connection, step: Any) -> None:
    with Operations.context(MigrationContext.configure(connection)):
        step()


def columns(connection: Connection, table: str) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table)}


@pytest.mark.parametrize("name", ROWS)
async def test_versions_come_to_rows_that_are_there_and_go_again(name: str, database_url: str) -> None:
    first, second = revision(service.load(name), "0001"), revision(service.load(name), "0002")
    table, insertion = ROWS[name]
    numbers = iter(range(10))
    database = Database(database_url, SETTINGS)
    async with database.session() as session:
        connection = await session.connection()

        async def fill() -> None:
            await connection.exec_driver_sql(insertion.format(n=next(numbers), moment="2026-01-01 00:00:00"))

        await connection.run_sync(run, first.upgrade)
        for _ in range(2):
            await fill()
            before = await connection.run_sync(columns, table)
            await connection.run_sync(run, second.upgrade)
            await fill()
            assert set(await session.scalars(text(f"SELECT version FROM {table}"))) == {1}
            await connection.run_sync(run, second.downgrade)
            assert await connection.run_sync(columns, table) == before
            assert f"{name}_idempotency" not in await connection.run_sync(lambda c: inspect(c).get_table_names())
        assert await session.scalar(text(f"SELECT COUNT(*) FROM {table}")) == 4
    await database.close()


async def test_going_back_and_forth_sqlite_gives_out_no_id_twice(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'ids.sqlite3'}", SETTINGS)
    orders = service.load("orders")
    first, second = revision(orders, "0001"), revision(orders, "0002")
    async with database.session() as session:
        connection = await session.connection()
        for step in (first.upgrade, second.upgrade):
            await connection.run_sync(run, step)
        await connection.exec_driver_sql(ROWS["orders"][1].format(n=1, moment="2026-01-01"))
        await connection.exec_driver_sql("DELETE FROM orders")
        for step in (second.downgrade, second.upgrade):
            await connection.run_sync(run, step)
        await connection.exec_driver_sql(ROWS["orders"][1].format(n=2, moment="2026-01-01"))
        assert await session.scalar(text("SELECT id FROM orders")) == 2
    await database.close()
