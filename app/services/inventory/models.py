"""The tables of the inventory."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, String, Table

from app.data import idempotency, tables, versions

metadata = tables.metadata()

items = Table(
    "inventory_items",
    metadata,
    Column("sku", tables.key(64), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("available", BigInteger, nullable=False),
    versions.column(),
    # Of the request that has made it, so that it finds it when it comes again.
    Column("request_key", tables.key(64), nullable=True),
    Index(None, "request_key", unique=True),
    # The conditional update never lets it happen; this is for whoever comes with other tools.
    CheckConstraint("available >= 0", name="available"),
    **tables.OPTIONS,
)

reservations = Table(
    "inventory_reservations",
    metadata,
    Column("order_ref", tables.key(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    **tables.OPTIONS,
)

lines = Table(
    "inventory_reservation_lines",
    metadata,
    Column("order_ref", tables.key(64), ForeignKey("inventory_reservations.order_ref"), primary_key=True),
    # Indexed, because removing an item asks whether a line still refers to it.
    Column("sku", tables.key(64), ForeignKey("inventory_items.sku"), primary_key=True, index=True),
    Column("quantity", Integer, nullable=False),
    **tables.OPTIONS,
)

requests = idempotency.table(metadata, "inventory")
