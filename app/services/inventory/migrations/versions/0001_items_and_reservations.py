"""Items and reservations."""

import sqlalchemy as sa
from alembic import op

from app.data import tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "inventory_items",
        sa.Column("sku", tables.key(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("available", sa.BigInteger, nullable=False),
        sa.CheckConstraint("available >= 0", name="ck_inventory_items_available"),
        sa.PrimaryKeyConstraint("sku", name="pk_inventory_items"),
        **tables.OPTIONS,
    )
    op.create_table(
        "inventory_reservations",
        sa.Column("order_ref", tables.key(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", tables.UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("order_ref", name="pk_inventory_reservations"),
        **tables.OPTIONS,
    )
    op.create_table(
        "inventory_reservation_lines",
        sa.Column("order_ref", tables.key(64), nullable=False),
        sa.Column("sku", tables.key(64), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("order_ref", "sku", name="pk_inventory_reservation_lines"),
        sa.ForeignKeyConstraint(
            ["order_ref"],
            ["inventory_reservations.order_ref"],
            name="fk_inventory_reservation_lines_order_ref_inventory_reservations",
        ),
        sa.ForeignKeyConstraint(
            ["sku"], ["inventory_items.sku"], name="fk_inventory_reservation_lines_sku_inventory_items"
        ),
        **tables.OPTIONS,
    )
    op.create_index("ix_inventory_reservation_lines_sku", "inventory_reservation_lines", ["sku"])


def downgrade() -> None:
    op.drop_table("inventory_reservation_lines")
    op.drop_table("inventory_reservations")
    op.drop_table("inventory_items")
