"""Versions of users, and requests that may come twice.

Revises: 0001
"""

from alembic import op

from app.data import idempotency, tables, versions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", versions.column())
    idempotency.table(tables.metadata(), "users").create(op.get_bind())


def downgrade() -> None:
    op.drop_table("users_idempotency")
    # As they are, and not by way of a new table: SQLite would forget which ids it has given out.
    op.drop_column("users", "version")
