"""What waits to be sent is looked up where it is within reach, and nothing is made there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app import settings as app_settings
from app.cli.outboxes import backlogs
from app.data import Database, migrations
from app.service import Service
from app.settings import Settings
from tests.data.databases import SETTINGS
from tests.data.toys import Toy, revision
from tests.events import shop as toy
from tests.events.shop import Bought, outbox


@pytest.fixture
def service(tmp_path: Path) -> Service:
    versions = tmp_path / "revisions"
    versions.mkdir()
    create = f"__import__('app.events.tables').events.tables.create(op.get_bind(), {toy.NAME!r})"
    revision(Toy(toy.NAME, toy.metadata, versions), 1, create)
    return Service(toy.NAME, models=toy.metadata, migrations=versions, outbox=outbox)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return app_settings.load(data_dir=tmp_path, database_url=SecretStr(database_url))


async def test_events_that_are_due_wait_and_those_to_come_do_not(
    service: Service, settings: Settings, database_url: str
) -> None:
    await migrations.upgrade(service, database_url)
    database = Database(database_url, SETTINGS)
    async with database.session() as session:
        for at in (None, None, timedelta(hours=1)):
            await outbox.publish(session, Bought(customer="ann", number=1), at=at)
    await database.close()
    found = await backlogs(settings, [service, Service("silent")])
    assert list(found) == [toy.NAME]
    assert found[toy.NAME].waiting == 2
    assert found[toy.NAME].oldest is not None


async def test_a_database_that_is_not_there_is_left_out_and_not_made(
    service: Service, settings: Settings, tmp_path: Path
) -> None:
    assert await backlogs(settings, [service]) == {}
    away = settings.model_copy(update={"database_url": SecretStr("postgresql+asyncpg://nobody@127.0.0.1:1/none")})
    assert await backlogs(away, [service]) == {}
    assert not _databases(tmp_path)


async def test_tables_of_older_code_are_left_out(service: Service, settings: Settings, database_url: str) -> None:
    await migrations.upgrade(service, database_url)
    assert service.migrations is not None
    revision(Toy(toy.NAME, toy.metadata, service.migrations), 2, "pass")
    assert await backlogs(settings, [service]) == {}


def _databases(folder: Path) -> list[Path]:
    return list(folder.glob("*.sqlite3"))
