"""Who migrates a service's tables is alone with them, however many processes want to.

SQLite           one IMMEDIATE transaction around everything: the file's own write lock, gone with its holder
PostgreSQL       an advisory lock, held by the connection
MySQL, MariaDB   GET_LOCK, held by the connection
"""

from __future__ import annotations

import hashlib

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.data import faults
from app.errors import Unavailable

LOCK_SECONDS = 60


async def take(backend: str, connection: AsyncConnection, service: str) -> None:
    """Wait for the lock of `service` in the database of `connection`; it is free again when the connection closes.

    Raises:
        Unavailable: it did not come free in a minute.
    """
    await _LOCKS[backend](connection, service)


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
