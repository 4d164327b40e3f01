"""Events of orders, and what became of an order that was rejected.

Revises: 0002

The stock is no longer asked for by calls; what the flow before has left half-way comes to its end by events. During a rolling
update, processes of both kinds run over one database, and neither breaks what the other does:

-  An order that the old one has written it reserves and confirms itself, by the inventory's routes, which are still there. If
   the old process dies meanwhile, the order stays pending (those that are so now are given up in two minutes); whoever
   cancels it has its stock given back.
-  An order that the new one has written the old one does not show before it is confirmed. One that is pending for two minutes
   the old one may remove, after it has released it for good: then nothing is held, and what the inventory says later finds no
   order.
-  A rejected order is an error to the old one, for as long as it runs.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from alembic import op

from app.data import tables
from app.events import partition
from app.events import tables as event_tables
from app.events.envelope import CloudEvent

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Longer than a process of the old kind takes for an order.
_PATIENCE = timedelta(minutes=2)

_orders = sa.table(
    "orders",
    sa.column("id", tables.BIG_ID),
    sa.column("user_id", sa.BigInteger),
    sa.column("state", sa.String),
    sa.column("reference", tables.key(64)),
    sa.column("request_key", tables.key(64)),
    sa.column("overdue_event", tables.key(64)),
)


def upgrade() -> None:
    event_tables.create(op.get_bind(), "orders")
    op.add_column("orders", sa.Column("rejection", sa.JSON(), nullable=True))
    op.add_column("orders", sa.Column("overdue_event", tables.key(64), nullable=True))
    _go_on_with_what_is_unfinished(op.get_bind(), datetime.now(UTC))


def downgrade() -> None:
    # The flow before forgets what was refused, and gives back what may be reserved for it.
    rejected = sa.update(_orders).where(_orders.c.state == "rejected")
    op.execute(rejected.values(state="abandoned", request_key=None))
    # As they are, and not by way of a new table: SQLite would forget which ids it has given out.
    op.drop_column("orders", "overdue_event")
    op.drop_column("orders", "rejection")
    event_tables.drop(op.get_bind(), "orders")


def _go_on_with_what_is_unfinished(connection: sa.Connection, now: datetime) -> None:
    unfinished = sa.select(_orders).where(_orders.c.state.in_(("pending", "abandoned", "cancelling")))
    for row in connection.execute(unfinished.order_by(_orders.c.id)).all():
        if row.state == "cancelling":
            data = {"reference": row.reference, "order_id": row.id, "user_id": row.user_id}
            _publish(connection, "orders.cancelled", data, now, due_at=now)
            new: dict[str, Any] = {"state": "cancelled"}
        else:
            # Somebody may just be at it: the event finds out.
            overdue = _publish(connection, "orders.overdue", {"reference": row.reference}, now, due_at=now + _PATIENCE)
            new = {"overdue_event": overdue}
        connection.execute(sa.update(_orders).where(_orders.c.id == row.id).values(new))


def _publish(connection: sa.Connection, type_: str, data: dict[str, Any], now: datetime, *, due_at: datetime) -> str:
    key = data["reference"]
    event = CloudEvent(id=uuid.uuid4().hex, type=type_, version=1, source="/orders", key=key, time=now, data=data)
    outbox = event_tables.of(tables.metadata(), "orders").outbox
    row = {
        "event_id": event.id,
        "type": type_,
        "slot": partition.slot_of(key),
        "content": event.to_json(),
        "batch": 0,
        "due_at": due_at,
    }
    connection.execute(sa.insert(outbox).values(row))
    return event.id
