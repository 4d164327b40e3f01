"""What every test may ask for: a Redis namespace, a fresh PostgreSQL or MySQL database; real servers, never mocks.

In order: what REDIS_URL, POSTGRES_URL, MYSQL_URL name; what answers on the standard local ports; an embedded server
(MySQL has none: its tests are skipped, saying so). ``MESH_TEST_EMBEDDED=1`` goes straight to the embedded ones, as a
bare machine would.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomysql
import asyncpg
import hypothesis
import pytest
import redis
import structlog

from app.dev import redis as embedded_redis
from app.mesh.keys import Keys
from app.telemetry import logs
from tests import postgres as embedded_postgres
from tests.beside import pytest_runtest_protocol, pytest_xdist_make_scheduler
from tests.summary import pytest_terminal_summary
from tests.tokens import TestIssuer

__all__ = ["pytest_runtest_protocol", "pytest_terminal_summary", "pytest_xdist_make_scheduler"]


_Ask = Callable[[str, str], Coroutine[Any, Any, None]]

EMBEDDED_ONLY = os.environ.get("MESH_TEST_EMBEDDED", "") not in ("", "0")

_TESTS_BETWEEN, _NEVER = 50, 1_000_000
_finished = itertools.count(1)

# A shared machine may be slow at any moment: hypothesis looks for wrong answers here, not for slow ones.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the failure suite's long form: see tests/faults")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests away from what the developer has: settings of the shell, data of the project folder."""
    for name in [name for name in os.environ if name.startswith("MESH_") and not name.startswith("MESH_TEST_")]:
        del os.environ[name]
    # Whoever is started in the background of a shell ignores SIGINT, and so do its children: here Ctrl-C is a subject.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["MESH_ENV"] = "test"
    os.environ["MESH_DATA_DIR"] = str(Path(tempfile.gettempdir()) / f"mesh-test-{os.getpid()}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays: the garbage collector need not look through it again, thousands of times."""
    _collect()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def pytest_runtest_logfinish() -> None:
    """To look through all objects takes a fifth of a second: between tests, and not in one that waits for half of one."""
    if next(_finished) % _TESTS_BETWEEN == 0:
        _collect()


def _collect() -> None:
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["MESH_DATA_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What a test has made of the process's logs (a service or a command within it does) ends with the test."""
    root, before = logging.getLogger(), structlog.get_config()
    level = root.level
    yield
    if structlog.get_config() != before:
        structlog.configure(**before)
        for room in logs._rooms.values():
            room.rebind()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, logs._Foreign)]
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis shared by all tests: keep to your own `namespace`, never flush it."""
    given = os.environ.get("REDIS_URL")
    if given and not EMBEDDED_ONLY:
        yield given
    elif embedded_redis.answers("127.0.0.1", 6379) and not EMBEDDED_ONLY:
        yield "redis://127.0.0.1:6379/0"
    else:
        with _own_redis() as server:
            yield server.url


@pytest.fixture
def private_redis() -> Iterator[embedded_redis.Server]:
    """A Redis of this test alone, which may be flushed, paused or killed (by its pid)."""
    with _own_redis() as server:
        yield server


@pytest.fixture
def namespace(redis_url: str) -> Iterator[str]:
    """A name for settings.registry.namespace that nobody else has; its keys are deleted afterwards."""
    name = f"test-{secrets.token_hex(6)}"
    yield name
    with closing(redis.Redis.from_url(redis_url)) as client:
        for key in client.scan_iter(f"*{name}*", count=1000):
            client.delete(key)


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


@pytest.fixture
def store(redis_url: str, namespace: str) -> Iterator[redis.Redis]:
    """Redis itself; afterwards every key of the namespace must have a TTL."""
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        yield client
        unbounded = [key for key in client.scan_iter(f"{{{namespace}}}:*") if client.ttl(key) == -1]
        assert unbounded == []


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> TestIssuer:
    """Whose tokens are believed by what is told of its `jwks_file`."""
    return TestIssuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a fresh PostgreSQL database, for SQLAlchemy."""
    with ExitStack() as stack:
        server = _postgres_server() or stack.enter_context(embedded_postgres.embedded())
        name = _fresh_name()
        _run(_postgres(server, f"CREATE DATABASE {name}"))
        yield _address(server, scheme="postgresql+asyncpg", database=name)
        _run(_postgres(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def mysql_url() -> Iterator[str]:
    """The address of a fresh MySQL or MariaDB database, for SQLAlchemy; skips where there is no server."""
    server = _mysql_server()
    if server is None:
        pytest.skip("no MySQL: MYSQL_URL is not set and nothing answers as root at 127.0.0.1:3306")
    name = _fresh_name()
    _run(_mysql(server, f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
    yield _address(server, scheme="mysql+aiomysql", database=name, query="charset=utf8mb4")
    _run(_mysql(server, f"DROP DATABASE {name}"))


@contextmanager
def _own_redis() -> Iterator[embedded_redis.Server]:
    binary = embedded_redis.locate("" if EMBEDDED_ONLY else None)
    with (
        tempfile.TemporaryDirectory(prefix="mesh-redis-") as folder,
        embedded_redis.embedded(Path(folder), binary=binary) as server,
    ):
        yield server


def _postgres_server() -> str | None:
    if EMBEDDED_ONLY:
        return None
    if given := os.environ.get("POSTGRES_URL"):
        return _address(given, scheme="postgresql", database="postgres")
    local = "postgresql://postgres@127.0.0.1:5432/postgres"
    return local if _answers(_postgres, local) else None


def _mysql_server() -> str | None:
    if EMBEDDED_ONLY:
        return None
    if given := os.environ.get("MYSQL_URL"):
        return given
    local = "mysql://root@127.0.0.1:3306"
    return local if _answers(_mysql, local) else None


def _answers(ask: _Ask, server: str) -> bool:
    try:
        _run(ask(server, "SELECT 1"))
    except (OSError, asyncpg.PostgresError, aiomysql.MySQLError):
        return False
    return True


async def _postgres(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server, timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _mysql(server: str, statement: str) -> None:
    at = urlsplit(server)
    connection = await aiomysql.connect(
        host=at.hostname,
        port=at.port or 3306,
        user=unquote(at.username or "root"),
        password=unquote(at.password or ""),
        connect_timeout=5,
    )
    try:
        cursor = await connection.cursor()
        await cursor.execute(statement)
        await cursor.close()
    finally:
        connection.close()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it in a thread of its own: the test's event loop is not to be touched."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, work).result()


def _fresh_name() -> str:
    return f"mesh_test_{secrets.token_hex(6)}"


def _address(server: str, *, scheme: str, database: str, query: str = "") -> str:
    return urlsplit(server)._replace(scheme=scheme, path=f"/{database}", query=query).geturl()
