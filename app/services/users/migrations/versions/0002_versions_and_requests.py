"""Versions of users, and requests that may come twice.

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
    op.add_column("users", versions.column())
    op.add_column("users", sa.Column("request_key", tables.key(64), nullable=True))
    op.create_index("ix_users_request_key", "users", ["request_key"], unique=True)
    idempotency.table(tables.metadata(), "users").create(op.get_bind())


def downgrade() -> None:
    op.drop_table("users_idempotency")
    # As they are, and not by way of a new table: SQLite would forget which ids it has given out.
    op.drop_index("ix_users_request_key", "users")
    op.drop_column("users", "request_key")
    op.drop_column("users", "version")
