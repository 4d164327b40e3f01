"""The pool is bounded, and says how it stands."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from app.data import Database
from app.telemetry import Metrics
from tests.data.databases import Connect, Server


def figures(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Of the database, by the end of the name and the label."""
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {
        (sample.name.removeprefix("mesh_database_"), next(iter(sample.labels.values()), "")): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("mesh_database_")
    }


async def test_the_metrics_show_who_has_a_connection_and_who_waits_for_one(
    server_url: str, server: Server, connect: Connect
) -> None:
    database = connect(server_url, changed={"pool_size": 1, "pool_overflow": 1})
    metrics = Metrics(service="users")
    metrics.follow_database(database)
    async with database.reading() as one, database.reading() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
        third = asyncio.create_task(database.ping())
        async with asyncio.timeout(10):
            while not database.pools["primary"].waiting:
                await asyncio.sleep(0)
        now = figures(metrics)
        assert now["connections_limit", "primary"] == 2
        assert now["connections_checked_out", "primary"] == 2
        assert now["connections_overflow", "primary"] == 1
        assert now["connections_waiting", "primary"] == 1
        assert now["connections_opened_total", "primary"] == 2
    await third
    await server.kill_all()
    await database.ping()
    now = figures(metrics)
    assert now["connections_checked_out", "primary"] == 0
    assert now["connections_waiting", "primary"] == 0
    assert now["connections_idle", "primary"] == 1
    assert now["connections_lost_total", "primary"] == 1
    assert ("replica_asked", "") not in now


async def test_a_replica_has_figures_of_its_own(database_url: str, connect: Connect) -> None:
    database = connect(database_url, read_url=database_url)
    metrics = Metrics(service="users")
    metrics.follow_database(database)
    await database.read(lambda session: session.execute(text("SELECT 1")))
    now = figures(metrics)
    assert now["connections_opened_total", "replica"] == 1
    assert now["connections_opened_total", "primary"] == 0
    assert now["replica_asked", ""] == 1
    assert now["tried_again_total", "replica"] == 0


async def test_a_database_tells_its_story(database: Database) -> None:
    await database.ping()
    told = repr(database)
    assert told.startswith(f"<Database {database.url_without_password}")
    assert "0 of 10 connections in use" in told
    primary = database.describe()["primary"]
    assert (primary["limit"], primary["idle"], primary["lost"]) == (10, 1, 0)
