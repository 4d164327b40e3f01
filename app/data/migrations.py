"""Alembic, per service: ``await upgrade(service, url)`` brings the service's tables to their newest revision.

However many processes start at once, one migrates and the others wait and find the work done:

    SQLite           one IMMEDIATE transaction around everything: the file's own write lock, gone with its holder
    PostgreSQL       an advisory lock, held by the connection
    MySQL, MariaDB   GET_LOCK, held by the connection

Services may share a database: each has a version table of its own and sees its own tables only. Revisions go forward
only: old and new processes run side by side during an update, so a mistake is mended by the next revision.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import NullPool

from app import telemetry
from app.data import backends, faults
from app.errors import Misconfigured, Unavailable

ENVIRONMENT = Path(__file__).parent / "alembic_env"
LOCK_SECONDS = 60

_T = TypeVar("_T")
_Work = Callable[[Connection, Config], _T]
_log = telemetry.log("data.migrations")
# Alembic keeps its context in module globals: one piece of work at a time in a process.
_alembic = threading.Lock()


class Migrated(Protocol):
    """What is needed of a service: its name, its tables, the folder of its revisions."""

    @property
    def name(self) -> str: ...
    @property
    def models(self) -> MetaData | None: ...
    @property
    def migrations(self) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Status:
    """Where a service's tables are.

    Args:
        current: the revision of the database; None if nothing was ever migrated.
        head: the newest revision of the code; None if there is none.
        pending: the revisions that `upgrade` would run, oldest first.
        ahead: the database was migrated by newer code, whose revisions this code does not know.
    """

    service: str
    current: str | None
    head: str | None
    pending: tuple[str, ...]
    ahead: bool


async def upgrade(service: Migrated, url: str) -> Status:
    """Run what is pending, once among all processes, and return the state before.

    Does nothing for a service without tables, and nothing to a database that newer code has migrated: in a rolling
    update the old processes must still be able to start.

    Raises:
        Unavailable: the database is away, or the lock did not come free in a minute.
        Misconfigured: the URL is wrong.
    """
    if service.migrations is None:
        return _none(service)
    parsed = backends.parse(url)
    if parsed.get_backend_name() == "sqlite":
        _file(parsed).parent.mkdir(parents=True, exist_ok=True)
    before = await asyncio.to_thread(_run, service, parsed, _upgrade, locked=True)
    if before.pending:
        _log.info("migrated", service=service.name, before=before.current, after=before.head)
    if before.ahead:
        _log.warning("database is ahead of this code", service=service.name, current=before.current, head=before.head)
    return before


async def status(service: Migrated, url: str) -> Status:
    """Say where the tables are, and change nothing. Raises what `upgrade` raises."""
    parsed = backends.parse(url)
    if service.migrations is None:
        return _none(service)
    if parsed.get_backend_name() == "sqlite" and not _file(parsed).exists():
        # To connect would create the file.
        return _compare(service, None)
    return await asyncio.to_thread(_run, service, parsed, lambda c, _: _status(service, c), locked=False)


async def revise(service: Migrated, url: str, message: str) -> None:
    """Write a new revision into the service's folder: what its models have and the database at `url` lacks."""

    def write(_connection: Connection, config: Config) -> None:
        command.revision(config, message, autogenerate=True, rev_id=_next_id(config))

    await asyncio.to_thread(_run, service, backends.parse(url), write, locked=True)


def version_table(service: Migrated) -> str:
    return f"{service.name}_alembic_version"


def _none(service: Migrated) -> Status:
    return Status(service.name, current=None, head=None, pending=(), ahead=False)


def _file(url: URL) -> Path:
    return Path(url.database or "")


def _config(service: Migrated) -> Config:
    config = Config()
    for name, value in {
        "script_location": str(ENVIRONMENT),
        "version_locations": str(service.migrations),
        "path_separator": "newline",
        "file_template": "%(rev)s_%(slug)s",
    }.items():
        # ConfigParser would take a percent sign in a path for a reference.
        config.set_main_option(name, value.replace("%", "%%"))
    return config


def _next_id(config: Config) -> str:
    return f"{len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1:04}"


def _status(service: Migrated, connection: Connection) -> Status:
    context = MigrationContext.configure(connection, opts={"version_table": version_table(service)})
    return _compare(service, context.get_current_revision())


def _compare(service: Migrated, current: str | None) -> Status:
    known = [script.revision for script in ScriptDirectory.from_config(_config(service)).walk_revisions()][::-1]
    ahead = current is not None and current not in known
    pending = () if ahead else tuple(known[known.index(current) + 1 :] if current else known)
    return Status(service.name, current=current, head=known[-1] if known else None, pending=pending, ahead=ahead)


def _upgrade(connection: Connection, config: Config) -> Status:
    before = _status(config.attributes["service"], connection)
    # Reading opened a transaction; except on SQLite, where it is ours, Alembic wants to open its own.
    if not config.attributes["locked_by_transaction"]:
        connection.commit()
    if before.pending:
        command.upgrade(config, "head")
    return before


# ------------------------------------------------------------------------------------- connection and lock


def _run(service: Migrated, url: URL, work: _Work[_T], *, locked: bool) -> _T:
    """Run `work` on a connection of its own, in this thread and an event loop of its own."""
    with _alembic:
        try:
            return asyncio.run(_connected(service, url, work, locked=locked))
        except (SQLAlchemyError, OSError) as error:
            translation = faults.translate(error)
            if translation is None:
                raise
            raise translation from error


async def _connected(service: Migrated, url: URL, work: _Work[_T], *, locked: bool) -> _T:
    engine = backends.open_engine(url, None, poolclass=NullPool)
    config = _config(service)
    config.attributes.update(
        service=service,
        metadata=service.models,
        version_table=version_table(service),
        include_name=_only_ours(service),
        locked_by_transaction=url.get_backend_name() == "sqlite",
    )
    try:
        async with engine.connect() as connection:
            if locked:
                await _LOCKS[url.get_backend_name()](connection, service.name)
            config.attributes["connection"] = connection.sync_connection
            result = await connection.run_sync(work, config)
            await connection.commit()
            # Leaving the block closes the connection, and with it goes the lock.
            return result
    finally:
        await engine.dispose()


def _only_ours(service: Migrated) -> Callable[[str | None, str, object], bool]:
    if service.models is None:
        raise Misconfigured(f"Service {service.name}: migrations need models")
    tables = service.models.tables

    def include(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in tables

    return include


async def _lock_sqlite(connection: AsyncConnection, _service: str) -> None:
    # Alembic moves rows to a new table to alter one; with the keys enforced, dropping the old one would take the
    # rows that refer to it along. The pragma has no effect inside a transaction.
    await connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    await connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _lock_postgresql(connection: AsyncConnection, service: str) -> None:
    number = int.from_bytes(_lock_name(service)[:8], "big", signed=True)
    await connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
    await connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": number})
    await connection.commit()


async def _lock_mysql(connection: AsyncConnection, service: str) -> None:
    # These locks are the server's, not the database's.
    name = text("SELECT GET_LOCK(CONCAT(:prefix, MD5(DATABASE())), :seconds)")
    prefix = _lock_name(service).hex()[:24]
    if not (await connection.execute(name, {"prefix": prefix, "seconds": LOCK_SECONDS})).scalar():
        raise Unavailable(f"Another process is migrating {service}", retry_after=faults.RETRY_AFTER_SECONDS)
    await connection.commit()


def _lock_name(service: str) -> bytes:
    return hashlib.sha256(f"mesh:migrate:{service}".encode()).digest()


_LOCKS = {
    "sqlite": _lock_sqlite,
    "postgresql": _lock_postgresql,
    "mysql": _lock_mysql,
    "mariadb": _lock_mysql,
}
