from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

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
