"""Users."""

import sqlalchemy as sa
from alembic import op

from app.data import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", tables.BIG_ID, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("email", tables.key(254), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        **tables.NUMBERED,
    )


def downgrade() -> None:
    op.drop_table("users")
