"""The tables of users."""

from __future__ import annotations

from sqlalchemy import Column, Index, String, Table

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
    # Of the request that has made it, so that it finds it when it comes again.
    Column("request_key", tables.key(64), nullable=True),
    Index(None, "request_key", unique=True),
    **tables.NUMBERED,
)

requests = idempotency.table(metadata, "users")
