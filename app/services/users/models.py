"""The tables of users."""

from __future__ import annotations

from sqlalchemy import Column, String, Table

from app.data import idempotency, tables, versions

metadata = tables.metadata()

users = Table(
    "users",
    metadata,
    Column("id", tables.BIG_ID, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("email", tables.key(254), nullable=False, unique=True),
    Column("created_at", tables.UtcDateTime(), nullable=False),
    versions.column(),
    **tables.NUMBERED,
)

requests = idempotency.table(metadata, "users")
