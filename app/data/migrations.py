"""Alembic, per service: ``await upgrade(service, url)`` brings the service's tables to their newest revision.

However many processes start at once, one migrates (see `locks`) and the others wait and find the work done. Services may
share a database: each has a version table of its own and sees its own tables only.

Processes go forward only, by themselves: old and new ones run side by side during an update, so as a rule a mistake is
mended by the next revision. An operator may go back, with ``downgrade``, once no process is left that needs what goes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from app import telemetry
from app.data import backends, faults, locks
from app.errors import Conflict, InvalidInput, Misconfigured

ENVIRONMENT = Path(__file__).parent / "alembic_env"
BASE = "base"

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
        known: all revisions of the code, oldest first.
    """

    service: str
    current: str | None
    head: str | None
    pending: tuple[str, ...]
    ahead: bool
    known: tuple[str, ...] = ()


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


async def downgrade(service: Migrated, url: str, *, to: str | None = None) -> Status:
    """Go back, alone as in `upgrade`, and return the state before. What only the later revisions can hold is gone.

    Args:
        to: the revision to go back to, ``base`` for before the first; by default one revision back.

    Raises:
        Conflict: newer code has migrated the database, and only that knows the way back.
        InvalidInput: `to` is no revision before the present one.
        Unavailable, Misconfigured: as `upgrade`.
    """
    found = await status(service, url)
    if found.current is None and _target(found, to) == BASE:
        # Nothing to go back from, so nothing to create either.
        return found

    def go_back(connection: Connection, config: Config) -> Status:
        return _downgrade(connection, config, to)

    before = await asyncio.to_thread(_run, service, backends.parse(url), go_back, locked=True)
    _log.warning("migrated back", service=service.name, before=before.current, to=to or "the revision before")
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


async def revision(service: Migrated, url: str, message: str) -> None:
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
    known = tuple(script.revision for script in ScriptDirectory.from_config(_config(service)).walk_revisions())[::-1]
    ahead = current is not None and current not in known
    pending = () if ahead else known[known.index(current) + 1 :] if current else known
    return Status(
        service.name, current=current, head=known[-1] if known else None, pending=pending, ahead=ahead, known=known
    )


def _upgrade(connection: Connection, config: Config) -> Status:
    before = _status(config.attributes["service"], connection)
    # Reading opened a transaction; except on SQLite, where it is ours, Alembic wants to open its own.
    if not config.attributes["locked_by_transaction"]:
        connection.commit()
    if before.pending:
        command.upgrade(config, "head")
    return before


def _downgrade(connection: Connection, config: Config, to: str | None) -> Status:
    before = _status(config.attributes["service"], connection)
    target = _target(before, to)
    if not config.attributes["locked_by_transaction"]:
        connection.commit()
    if target != (before.current or BASE):
        command.downgrade(config, target)
    return before


def _target(before: Status, to: str | None) -> str:
    """The revision to go back to. Raises Conflict and InvalidInput as `downgrade`."""
    if before.ahead:
        raise Conflict(f"{before.service}: newer code has migrated it, to {before.current}: go back with that code")
    path = (BASE, *before.known[: len(before.known) - len(before.pending)])
    if to is None:
        return path[-2] if len(path) > 1 else BASE
    if to not in path:
        raise InvalidInput(f"{before.service}: {to} is no revision before {before.current or BASE}")
    return to


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
                await locks.take(url.get_backend_name(), connection, service.name)
            config.attributes["connection"] = connection.sync_connection
            result = await connection.run_sync(work, config)
            await connection.commit()
            # Leaving the block closes the connection, and with it goes the lock.
            return result
    finally:
        await backends.close_engine(engine)


def _only_ours(service: Migrated) -> Callable[[str | None, str, object], bool]:
    if service.models is None:
        raise Misconfigured(f"Service {service.name}: migrations need models")
    tables = service.models.tables

    def include(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in tables

    return include
