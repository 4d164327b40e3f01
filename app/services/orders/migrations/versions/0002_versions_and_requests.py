"""Versions of orders, and requests that may come twice.

Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

from app.data import idempotency, tables, versions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("orders", versions.column())
    op.add_column("orders", sa.Column("request_key", tables.key(64), nullable=True))
    op.create_index("ix_orders_request_key", "orders", ["request_key"], unique=True)
    idempotency.table(tables.metadata(), "orders").create(op.get_bind())


def downgrade() -> None:
    op.drop_table("orders_idempotency")
    # As they are, and not by way of a new table: SQLite would forget which ids it has given out.
    op.drop_index("ix_orders_request_key", "orders")
    op.drop_column("orders", "request_key")
    op.drop_column("orders", "version")
