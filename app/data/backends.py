"""What differs between the databases: the driver behind a URL, timeouts, and what is said once at connect.

Nothing here costs a transaction a round trip more than its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.data import mysql, postgresql, sqlite
from app.errors import Misconfigured
from app.settings import DataSettings

CONNECT_TIMEOUT_SECONDS = 5.0
# Who waits for a lock gives up before the statement has to: then it is known that a lock was the reason.
_LOCK_SHARE = 0.5

# How each kind of database is spoken to when the URL names no driver.
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
}


def parse(url: str, *, variable: str = "DATABASE_URL") -> URL:
    """A database URL with an asynchronous driver.

    Args:
        variable: where it comes from.

    Raises:
        Misconfigured: it is no URL or names an unknown database; the message never shows what it was.
    """
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        asynchronous = parsed.get_dialect().is_async
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise Misconfigured(f"{variable} must look like postgresql+asyncpg://user:password@host/name") from None
    if parsed.get_backend_name() not in _OPTIONS or not asynchronous:
        raise Misconfigured(f"{variable}: {parsed.drivername} is no asynchronous driver of a supported database")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise Misconfigured(f"{variable}: SQLite needs a file: one in memory would be another for each connection")
    return parsed


def describe(url: URL) -> str:
    """The URL as it may be shown: no password, and no query, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def open_engine(url: URL, settings: DataSettings | None, **pool: Any) -> AsyncEngine:
    """An engine whose connections know their timeouts; None for `settings` means no statement timeout."""
    backend = url.get_backend_name()
    timeout = settings.statement_timeout_seconds if settings else None
    try:
        engine = create_async_engine(url, connect_args=_OPTIONS[backend](timeout), **_ISOLATION[backend], **pool)
    except ImportError as error:
        raise Misconfigured(f"The database: the driver {url.get_driver_name()} is not installed") from error
    if backend == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    if backend in ("mysql", "mariadb") and timeout is not None:
        mysql.limit(engine, timeout)
    return engine


async def close_engine(engine: AsyncEngine) -> None:
    """Close the engine's connections; none of them has anything to say to this event loop afterwards."""
    await engine.dispose()
    await sqlite.settle()


def is_closed(connection: Any) -> bool:
    """Whether a server's connection is known to be of no use; it costs no round trip.

    The server's farewell has mostly arrived by the time that somebody wants to use it.
    """
    if isinstance(connection, asyncpg.Connection):
        return bool(connection.is_closed())
    # aiomysql has a stream, and looks at it in this way in a pool of its own; asyncmy has a protocol.
    stream, protocol = getattr(connection, "_reader", None), getattr(connection, "_proto", None)
    if isinstance(stream, asyncio.StreamReader):
        return stream.at_eof() or bool(getattr(stream, "eof_received", False))
    return bool(getattr(protocol, "eof", True))


def _sqlite(timeout_seconds: float | None) -> dict[str, Any]:
    # IMMEDIATE: a transaction takes the write lock with its first change, and waits for it; a read takes none.
    return {
        "timeout": timeout_seconds * _LOCK_SHARE if timeout_seconds else 60.0,
        "isolation_level": "IMMEDIATE",
        "async_creator_fn": sqlite.connect,
    }


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")  # with WAL: a power cut may cost the last commits, never the file
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _postgresql(timeout_seconds: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": CONNECT_TIMEOUT_SECONDS, "async_creator_fn": postgresql.connect}
    if timeout_seconds is not None:
        options["server_settings"] = {
            "statement_timeout": str(int(timeout_seconds * 1000)),
            "lock_timeout": str(int(timeout_seconds * 1000 * _LOCK_SHARE)),
        }
        # The server's own timeout answers first; this one is for a server that has fallen silent.
        options["command_timeout"] = timeout_seconds + 1
    return options


def _mysql(timeout_seconds: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    if timeout_seconds is not None:
        # The two forks name it differently. Each runs its own comment only: /*M! is MariaDB's, and MariaDB skips
        # MySQL's version numbers between 50700 and 99999.
        options["init_command"] = (
            f"SET SESSION innodb_lock_wait_timeout={max(1, int(timeout_seconds * _LOCK_SHARE))}"
            f"/*M! , max_statement_time={timeout_seconds} *//*!80000 , max_execution_time={int(timeout_seconds * 1000)} */"
        )
    return options


_OPTIONS: Mapping[str, Callable[[float | None], dict[str, Any]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
}

# One meaning everywhere: each statement sees what is committed. MySQL's default, REPEATABLE READ, also locks gaps.
_ISOLATION: Mapping[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {},
    "mysql": {"isolation_level": "READ COMMITTED"},
    "mariadb": {"isolation_level": "READ COMMITTED"},
}

# How a session that only reads differs. PostgreSQL: no BEGIN and COMMIT, which are a round trip each.
READING: Mapping[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "AUTOCOMMIT"},
    "mysql": {},
    "mariadb": {},
}
