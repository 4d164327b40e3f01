"""The tables of orders. Users and items are known by their names only: they live in other databases."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, String, Table

from app.data import idempotency, tables, versions

metadata = tables.metadata()

orders = Table(
    "orders",
    metadata,
    Column("id", tables.BIG_ID, primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reference", tables.key(64), nullable=False, unique=True),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    versions.column(),
    # Of the request that has placed it, unless the same request may place another one.
    Column("request_key", tables.key(64), nullable=True),
    # Why nothing came of it.
    Column("rejection", JSON(none_as_null=True), nullable=True),
    # The event by which we are to hear of it again, to be taken back when it is settled before.
    Column("overdue_event", tables.key(64), nullable=True),
    Index(None, "user_id", "id"),
    # For who looks for what is unfinished.
    Index(None, "state", "created_at"),
    # An index and no constraint: SQLite can add it to a table as it is.
    Index(None, "request_key", unique=True),
    **tables.NUMBERED,
)

lines = Table(
    "order_lines",
    metadata,
    Column("order_id", tables.BIG_ID, ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("sku", tables.key(64), nullable=False),
    Column("quantity", Integer, nullable=False),
    **tables.OPTIONS,
)

requests = idempotency.table(metadata, "orders")
