"""The database of a service ends every connection, stops, and comes back: the service goes on, and needs no restart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import service, settings
from app.data import Database, migrations
from app.dev import ports
from tests import postgres
from tests.dev import system
from tests.dev.system import until
from tests.faults import traffic
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.traffic import Mix
from tests.postgres import Server
from tests.tokens import TestIssuer

pytestmark = pytest.mark.timeout(300)

MIX = {"user": 3.0, "sign-up": 1.0}
# One process, which is to have time: it is not its limits that are looked at here.
PER_SECOND = 25.0
POOL_SIZE, POOL_OVERFLOW = 4, 4
TERMINATIONS = 8
# Answers between one and the next: who has lost a connection should be through before, since a second loss is a 503.
BETWEEN = 10


@dataclass(frozen=True)
class Users:
    """The users service, a process of its own, on a PostgreSQL of its own."""

    url: str
    server: Server
    process: subprocess.Popen[bytes]

    def is_ready(self) -> bool:
        try:
            return system.ask(f"{self.url}/readyz").status == 200
        except OSError:
            return False

    def figure(self, name: str) -> float:
        """One of the metrics of its pool."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            families = text_string_to_metric_families(reply.read().decode())
        wanted = f"mesh_database_connections_{name}"
        return sum(sample.value for each in families for sample in each.samples if sample.name == wanted)

    def end_every_connection(self) -> int:
        """How many there were."""
        return len(self.told("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = current_user "
                             "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"))  # fmt: skip

    def connections(self) -> int:
        """As the server counts them, without the one that asks."""
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        (row,) = self.told(f"SELECT COUNT(*) FROM pg_stat_activity WHERE {others}")
        return int(row[0])

    def told(self, query: str) -> list[Any]:
        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self.server.url)
            try:
                return list(await connection.fetch(query))
            finally:
                await connection.close()

        return asyncio.run(ask())


@pytest.fixture
def users(redis_url: str, namespace: str, tmp_path: Path, issuer: TestIssuer) -> Iterator[Users]:
    with postgres.running() as server:
        database_url = server.url.replace("postgresql:", "postgresql+asyncpg:")
        asyncio.run(prepare(database_url))
        port = ports.any_free()
        environment = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": database_url,
            "MESH_REGISTRY__NAMESPACE": namespace,
            "MESH_AUTH__JWKS_FILE": str(issuer.jwks_file),
            "MESH_DATA_DIR": str(tmp_path),
            "MESH_DATA__POOL_SIZE": str(POOL_SIZE),
            "MESH_DATA__POOL_OVERFLOW": str(POOL_OVERFLOW),
        }
        with serving(port, tmp_path / "users.log", environment) as process:
            users = Users(f"http://127.0.0.1:{port}", server, process)
            until("the service is ready", users.is_ready)
            yield users


async def prepare(database_url: str) -> None:
    """Its tables, and the demo's users."""
    this = service.load("users")
    await migrations.upgrade(this, database_url)
    config = settings.load()
    database = Database(database_url, config.data)
    assert this.seed is not None
    await this.seed(database, config)
    await database.close()


@contextmanager
def serving(port: int, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            system.command("run", "users", "--port", str(port)),
            env=system.user_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def refusal(users: Users) -> tuple[int, str, float, str]:
    """Status, content type, seconds until it makes sense to ask again, and code of the answer to somebody who reads."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{users.url}/users/7", timeout=10)
    with caught.value as answer:
        code = json.loads(answer.read())["code"]
        return answer.code, answer.headers["Content-Type"], float(answer.headers["Retry-After"]), code


def test_every_answer_is_right_or_says_503_and_all_is_well_once_the_database_is_back(
    users: Users, pace: Pace, issuer: TestIssuer, note: Note
) -> None:
    token = issuer.user("admin", roles=("admin",))
    with traffic.against(users.url, Mix(PER_SECOND, MIX), token=token) as load:
        until("the load has begun", lambda: load.count)
        ended, blows = 0, list[tuple[float, float]]()
        for _ in range(TERMINATIONS):
            enough, begun = load.count + BETWEEN, time.monotonic()
            ended += users.end_every_connection()
            blows.append((begun, time.monotonic()))
            while load.count < enough:
                time.sleep(0.02)
        time.sleep(pace.warm_seconds)
        stopped = time.monotonic()
        users.server.stop()
        assert refusal(users) == (503, "application/problem+json", 1.0, "unavailable")
        assert not users.is_ready()
        time.sleep(pace.warm_seconds)
        users.server.start()
        until("the service is ready again", users.is_ready)
        back = time.monotonic()
        at_most = users.connections()
        time.sleep(pace.after_seconds)
    journal = load.journal
    before = journal.between(0.0, stopped)
    note(
        f"{ended} connections ended: {before}; stopped: {journal.between(stopped, back)}; {users.figure('lost_total'):.0f} lost"
    )
    assert ended >= TERMINATIONS
    assert set(journal.failed.counts()) <= {"user 503 unavailable", "sign-up 503 unavailable"}
    # The first that meets a dead connection tells, and what reads is asked again: once.
    for read in before.of_kind("user").failed.outcomes:
        met = sum(read.due <= end and begin <= read.ended for begin, end in blows)
        assert met > 1 or read.ended > stopped, f"{read} after {met} losses"
    assert journal.between(back, float("inf")).failed.counts() == {}
    assert users.process.poll() is None
    assert at_most <= POOL_SIZE + POOL_OVERFLOW
    until("every connection is back", lambda: users.figure("checked_out") == 0)
    assert users.figure("waiting") == 0
    until("the rest is closed", lambda: users.connections() <= POOL_SIZE)
    assert missing(users, journal) == set()


def missing(users: Users, journal: Any) -> set[str]:
    """Who was told that they are in, and is not; nobody can be in twice."""
    there = {row[0] for row in users.told("SELECT email FROM users")}
    told = {f"guest{each.number}@example.org" for each in journal.of_kind("sign-up").answered}
    return told - there
