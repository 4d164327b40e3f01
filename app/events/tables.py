"""Three tables in each service's own database: what is to be sent, how far the relay is, what was handled.

outbox   one row per event, written in the transaction of the change that it tells of. ``batch`` is 0 until the relay
         sends it; ``slot`` says which partition; sent rows stay for a while, so that streams can be rebuilt
relay    one row: the number of the last batch. Whoever sends takes this row first, so batches are numbered in the order in
         which they are committed
inbox    the ids of events that have had their effect, written in the transaction of the effect
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    insert,
)
from sqlalchemy.dialects import mysql

from app.data import tables

MAX_KEY = 200
MAX_TYPE = 200

_CONTENT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


@dataclass(frozen=True, slots=True)
class EventTables:
    """Those of one service."""

    outbox: Table
    relay: Table
    inbox: Table


def of(metadata: MetaData, service: str) -> EventTables:
    """Add the tables of `service` to the metadata of its own ones."""
    outbox = Table(
        f"{service}_outbox",
        metadata,
        Column("id", tables.BIG_ID, primary_key=True),
        Column("event_id", tables.key(64), nullable=False, unique=True),
        Column("type", String(MAX_TYPE), nullable=False),
        Column("slot", SmallInteger, nullable=False),
        Column("content", _CONTENT, nullable=False),
        Column("batch", BigInteger, nullable=False),
        Column("due_at", tables.UtcDateTime(), nullable=False),
        # What waits, by when it is due; and what was sent, in order.
        Index(None, "batch", "due_at"),
        **tables.NUMBERED,
    )
    relay = Table(
        f"{service}_relay",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("batch", BigInteger, nullable=False),
        **tables.OPTIONS,
    )
    inbox = Table(
        f"{service}_inbox",
        metadata,
        Column("event_id", tables.key(64), primary_key=True),
        Column("handled_at", tables.UtcDateTime(), nullable=False, index=True),
        **tables.OPTIONS,
    )
    return EventTables(outbox, relay, inbox)


def create(connection: Connection, service: str) -> None:
    """For a revision: the tables as they were first made. A change to them is another revision, not an edit here."""
    metadata = tables.metadata()
    made = of(metadata, service)
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(made.relay).values(id=1, batch=0))


def drop(connection: Connection, service: str) -> None:
    """Undoes `create`."""
    metadata = tables.metadata()
    of(metadata, service)
    metadata.drop_all(connection, checkfirst=False)
