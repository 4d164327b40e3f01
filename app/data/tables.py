"""Column types and conventions that mean the same on SQLite, PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, MetaData, String
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

# Every constraint has a name, so that a migration can drop it on every database.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# For a table's ``__table_args__``, and for ``op.create_table`` alike. SQLite must not hand a deleted row's id to a
# newcomer: somebody else may still refer to it.
OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
NUMBERED: dict[str, Any] = {**OPTIONS, "sqlite_autoincrement": True}

# SQLite numbers rows by itself in a column of exactly this type; it holds 64 bits there, too.
BIG_ID = BigInteger().with_variant(Integer(), "sqlite")


def metadata() -> MetaData:
    """The empty metadata of one service's tables."""
    return MetaData(naming_convention=NAMING)


def key(length: int) -> TypeEngine[str]:
    """Text that is compared byte by byte: a name in a URL, an e-mail address, a reference."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        String(length).with_variant(String(length, collation="C"), "postgresql").with_variant(exact, "mysql", "mariadb")
    )


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, to the microsecond: aware datetimes go in, datetimes in UTC come out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
