"""Services that really run: each with a database of its own, under Hypercorn, found through a real Redis."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from app import service, settings
from app.asgi import Process
from app.data import Database
from app.settings import Settings
from tests.data import databases
from tests.data.databases import database_url, server_url
from tests.services import templates
from tests.services.templates import Templates
from tests.tokens import TestCredentials, TestIssuer, bearer

__all__ = ["database_url", "server_url"]

# Here all is plain HTTP: httpx would read the world's certificates for each client, in 25 ms.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

# A server's connections are shared with every other test that runs, and with other programs.
POOL = {"pool_size": 2, "pool_overflow": 8}

Migrate = Callable[[str], Awaitable[Database]]


class Fresh(Protocol):
    def __call__(self, name: str, *, seeded: bool) -> str:
        """The URL of the database of the service `name`, with demo data if `seeded`; one of each service in a test."""
        ...


@dataclass(frozen=True)
class Running:
    """A service that answers: its `client` is an administrator unless somebody else asks."""

    client: httpx.AsyncClient
    database: Database
    process: Process
    stop: Callable[[], Awaitable[None]]

    @asynccontextmanager
    async def as_(self, token: str | None) -> AsyncIterator[Running]:
        """The same service, asked by who bears `token`; None for a stranger."""
        headers = bearer(token) if token is not None else {}
        async with httpx.AsyncClient(
            base_url=self.client.base_url, timeout=20, headers=headers, verify=PLAIN
        ) as client:
            yield replace(self, client=client)

    async def get(self, path: str, status: int = 200, **options: Any) -> Any:
        return await self.ask("GET", path, status, **options)

    async def ask(self, method: str, path: str, status: int, **options: Any) -> Any:
        """The parsed answer, which must have `status`."""
        answer = await self.client.request(method, path, **options)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
        return answer.json() if answer.content else None


class Start(Protocol):
    def __call__(self, name: str, **changes: Any) -> Awaitable[Running]:
        """One more process of the service `name`; those of one service share its database. `changes` are settings."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that has a service's database on every kind that it is for."""
    parametrized = any("backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not parametrized:
        chosen = os.environ.get("MESH_TEST_DATABASES")
        metafunc.parametrize("backend", chosen.split(",") if chosen else databases.KINDS, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database that the test is about."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="session")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    yield from templates.of(tmp_path_factory.mktemp("templates"))


@pytest.fixture(scope="session")
def on_postgresql(postgres_url: str) -> Iterator[Templates]:
    yield from templates.of(postgres_url)


@pytest.fixture(scope="session")
def on_mysql(mysql_url: str) -> Iterator[Templates]:
    yield from templates.of(mysql_url)


@pytest.fixture
def fresh(request: pytest.FixtureRequest, backend: str, tmp_path: Path) -> Fresh:
    made: Templates = request.getfixturevalue(f"on_{backend}")

    def fresh(name: str, *, seeded: bool) -> str:
        return made(name).fresh(tmp_path, seeded=seeded)

    return fresh


@pytest.fixture
async def migrated(fresh: Fresh) -> AsyncIterator[Migrate]:
    """Gives a database with the tables of one service."""
    async with AsyncExitStack() as stack:

        async def migrate(name: str) -> Database:
            database = Database(fresh(name, seeded=False), databases.SETTINGS)
            stack.push_async_callback(database.close)
            return database

        yield migrate


@pytest.fixture
async def start(
    redis_url: str, namespace: str, tmp_path: Path, issuer: TestIssuer, fresh: Fresh
) -> AsyncIterator[Start]:
    """Starts services with demo data, each on a database of its own, until the test is over.

    They believe `issuer`, and what they call gets tokens of it.
    """
    urls: dict[str, str] = {}
    async with AsyncExitStack() as stack:

        async def start(name: str, **changes: Any) -> Running:
            if name not in urls:
                urls[name] = fresh(name, seeded=True)
            common = {
                "redis_url": redis_url,
                "registry": {"namespace": namespace},
                "auth": {"jwks_file": issuer.jwks_file},
                "data": POOL,
                "database_url": urls[name],
                "data_dir": tmp_path,
            }
            config = settings.load(**common | changes)
            return await stack.enter_async_context(_running(name, config, issuer))

        yield start


@asynccontextmanager
async def _running(name: str, config: Settings, issuer: TestIssuer) -> AsyncIterator[Running]:
    this = service.load(name)
    async with AsyncExitStack() as stack:
        database = Database(config.database_url_of(name), databases.SETTINGS)
        stack.push_async_callback(database.close)
        listener = socket.create_server(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = Process(this, config, address)
        stop = await stack.enter_async_context(served(process, listener))
        assert process.resources is not None
        process.resources.mesh.credentials = TestCredentials(issuer, name)
        admin = bearer(issuer.user("admin", roles=("admin",)))
        client = httpx.AsyncClient(base_url=address, timeout=20, headers=admin, verify=PLAIN)
        await stack.enter_async_context(client)
        yield Running(client, database, process, stop)


@asynccontextmanager
async def served(process: Process, listener: socket.socket) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    hypercorn, stopping = Config(), asyncio.Event()
    # From here on the socket is Hypercorn's to close.
    hypercorn.bind = [f"fd://{listener.detach()}"]
    hypercorn.errorlog = None
    task = asyncio.create_task(serve(process, hypercorn, shutdown_trigger=stopping.wait))

    async def stop() -> None:
        stopping.set()
        await task

    try:
        # Resources are there before what goes on alongside has begun, which looks at the database.
        await until(lambda: process.entry.instance_id or task.done())
        yield stop
    finally:
        await stop()


async def until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    """Wait until `condition`, plain or async, says something true."""
    async with asyncio.timeout(seconds):
        for _ in itertools.count():
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.005)
