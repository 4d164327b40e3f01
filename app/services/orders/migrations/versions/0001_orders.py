"""Orders and their lines."""

import sqlalchemy as sa
from alembic import op

from app.data import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", tables.BIG_ID, nullable=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reference", tables.key(64), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
        sa.UniqueConstraint("reference", name="uq_orders_reference"),
        **tables.NUMBERED,
    )
    op.create_index("ix_orders_user_id_id", "orders", ["user_id", "id"])
    op.create_index("ix_orders_state_created_at", "orders", ["state", "created_at"])
    op.create_table(
        "order_lines",
        sa.Column("order_id", tables.BIG_ID, nullable=False),
        sa.Column("position", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("sku", tables.key(64), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("order_id", "position", name="pk_order_lines"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], ondelete="CASCADE", name="fk_order_lines_order_id_orders"),
        **tables.OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("order_lines")
    op.drop_table("orders")
