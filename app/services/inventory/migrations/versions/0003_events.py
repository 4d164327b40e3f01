"""Events of inventory.

Revises: 0002
"""

from alembic import op

from app.events import tables as event_tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    event_tables.create(op.get_bind(), "inventory")


def downgrade() -> None:
    event_tables.drop(op.get_bind(), "inventory")
