from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, select, text

from app.data import Database, migrations
from app.errors import Unavailable
from tests.data.databases import SETTINGS
from tests.data.toys import CREATE, Toy, revision, toy

ROOT = Path(__file__).parents[2]


async def table_names(url: str) -> set[str]:
    database = Database(url, SETTINGS)
    async with database.reading() as session:
        names = await (await session.connection()).run_sync(lambda connection: inspect(connection).get_table_names())
    await database.close()
    return set(names)


async def test_an_empty_database_is_brought_to_the_newest_revision(database_url: str, tmp_path: Path) -> None:
    service = toy(tmp_path)
    revision(service, 1, CREATE)
    revision(service, 2, "op.add_column('toys', sa.Column('price', sa.Integer))")

    before = await migrations.status(service, database_url)
    assert (before.current, before.head, before.pending) == (None, "0002", ("0001", "0002"))
    assert (await migrations.upgrade(service, database_url)).pending == ("0001", "0002")
    after = await migrations.status(service, database_url)
    assert (after.current, after.head, after.pending, after.ahead) == ("0002", "0002", (), False)
    assert (await migrations.upgrade(service, database_url)).pending == ()
    assert "toys" in await table_names(database_url)


async def test_only_what_is_new_is_run(database_url: str, tmp_path: Path) -> None:
    service = toy(tmp_path)
    revision(service, 1, CREATE)
    await migrations.upgrade(service, database_url)
    revision(service, 2, "op.add_column('toys', sa.Column('price', sa.Integer))")
    assert (await migrations.upgrade(service, database_url)).pending == ("0002",)


async def test_a_database_that_newer_code_has_migrated_is_left_alone(database_url: str, tmp_path: Path) -> None:
    newer, older = toy(tmp_path / "newer"), toy(tmp_path / "older")
    revision(older, 1, CREATE)
    revision(newer, 1, CREATE)
    revision(newer, 2, "op.add_column('toys', sa.Column('price', sa.Integer))")
    await migrations.upgrade(newer, database_url)
    status = await migrations.upgrade(older, database_url)
    assert (status.ahead, status.current, status.pending) == (True, "0002", ())


async def test_services_that_share_a_database_do_not_see_one_another(database_url: str, tmp_path: Path) -> None:
    one, two = toy(tmp_path), toy(tmp_path, "box")
    revision(one, 1, CREATE)
    revision(two, 1, CREATE.replace("toys", "boxs"))
    await migrations.upgrade(one, database_url)
    assert (await migrations.status(two, database_url)).current is None
    await migrations.upgrade(two, database_url)
    await migrations.revision(two, database_url, "nothing is new")
    assert two.migrations is not None
    (written,) = two.migrations.glob("0002_*.py")
    assert "drop_table" not in written.read_text()


async def test_a_new_revision_holds_what_the_models_have_and_the_database_lacks(
    database_url: str, tmp_path: Path
) -> None:
    service = toy(tmp_path)
    await migrations.revision(service, database_url, "first toys")
    await migrations.upgrade(service, database_url)
    wider = toy(tmp_path, "toy", "price")
    await migrations.revision(wider, database_url, "prices")
    await migrations.upgrade(wider, database_url)
    assert service.migrations is not None
    assert sorted(path.name for path in service.migrations.glob("*.py")) == ["0001_first_toys.py", "0002_prices.py"]
    for there in ("0001", "base"):
        await migrations.downgrade(wider, database_url)
        assert (await migrations.status(wider, database_url)).current == (None if there == "base" else there)
    await migrations.upgrade(wider, database_url)
    database = Database(database_url, SETTINGS)
    async with database.session() as session:
        assert wider.models is not None
        table = wider.models.tables["toys"]
        await session.execute(insert(table).values(price=3))
        assert (await session.execute(select(table.c.price))).scalar_one() == 3
    await database.close()


async def test_a_service_without_tables_has_nothing_to_migrate(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'none.sqlite3'}"
    service = Toy("none", models=None, migrations=None)
    assert (await migrations.upgrade(service, url)).pending == ()
    assert (await migrations.status(service, url)).head is None
    assert not (tmp_path / "none.sqlite3").exists()


async def test_a_sqlite_file_is_made_by_upgrade_with_its_folder_and_not_by_status(tmp_path: Path) -> None:
    service, file = toy(tmp_path), tmp_path / "data" / "deep" / "toy.sqlite3"
    revision(service, 1, CREATE)
    url = f"sqlite+aiosqlite:///{file}"
    assert (await migrations.status(service, url)).pending == ("0001",)
    assert not file.parent.exists()
    await migrations.upgrade(service, url)
    assert (await migrations.status(service, url)).pending == ()


# Not on MySQL, which commits with every CREATE TABLE.
@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_revision_that_fails_leaves_nothing_behind(database_url: str, tmp_path: Path) -> None:
    service = toy(tmp_path)
    revision(service, 1, CREATE)
    revision(service, 2, "op.add_column('toys', sa.Column('price', sa.Integer)); op.execute('SELECT nonsense')")
    with pytest.raises(Exception, match="nonsense"):
        await migrations.upgrade(service, database_url)
    assert (await migrations.status(service, database_url)).current is None
    assert "toys" not in await table_names(database_url)


async def test_altering_a_table_on_sqlite_keeps_the_rows_that_refer_to_it(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'toy.sqlite3'}"
    service = toy(tmp_path)
    revision(service, 1, CREATE)
    parts = "sa.Column('toy', sa.Integer, sa.ForeignKey('toys.id', ondelete='CASCADE'))"
    revision(service, 2, f"op.create_table('parts', {parts})")
    revision(service, 3, "op.execute('INSERT INTO toys VALUES (1)'); op.execute('INSERT INTO parts VALUES (1)')")
    alter = "batch.add_column(sa.Column('price', sa.Integer))"
    revision(service, 4, f"with op.batch_alter_table('toys', recreate='always') as batch: {alter}")
    await migrations.upgrade(service, url)
    database = Database(url, SETTINGS)
    async with database.reading() as session:
        assert (await session.execute(text("SELECT toy FROM parts"))).scalars().all() == [1]
    await database.close()


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    service = toy(tmp_path)
    with pytest.raises(Unavailable):
        await migrations.upgrade(service, "postgresql+asyncpg://me:hunter2@127.0.0.1:1/tea")


async def test_many_starts_in_one_process_migrate_once(database_url: str, tmp_path: Path) -> None:
    service = toy(tmp_path)
    revision(service, 1, CREATE)
    found = await asyncio.gather(*(migrations.upgrade(service, database_url) for _ in range(4)))
    assert sorted(len(status.pending) for status in found) == [0, 0, 0, 1]


STARTER = """
import asyncio, json, sys
from pathlib import Path
from app.data import migrations
from tests.data.toys import toy

print("here", flush=True)
sys.stdin.readline()
print(json.dumps((asyncio.run(migrations.upgrade(toy(Path(sys.argv[2])), sys.argv[1]))).pending))
"""


def test_many_processes_that_start_at_once_migrate_once(database_url: str, tmp_path: Path) -> None:
    service = toy(tmp_path)
    revision(service, 1, f"{CREATE}; import time; time.sleep(0.3)")
    command = [sys.executable, "-c", STARTER, database_url, str(tmp_path)]
    pipe = subprocess.PIPE
    starters = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for starter in starters:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "here\n"
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    found = [json.loads(starter.communicate(timeout=60)[0]) for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0]
    assert sorted(found) == [[], ["0001"]]
