"""Orders: who has ordered what. It asks users and inventory over the mesh. REST under /orders.

views.py        routes
logic.py        how an order is placed, cancelled and, after a crash, settled; knows no Flask, SQL or HTTP
peers.py        users and inventory, as the mesh reaches them
recovery.py     when what was left half-way is settled
schemas.py      what crosses the wire
repository.py   every query
models.py       its tables, its alone
migrations/     Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.orders.models import metadata
from app.services.orders.views import api

service = Service(
    "orders",
    blueprints=(api,),
    prefixes=("/orders",),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    calls=("users", "inventory"),
    description="Orders: place, list, read and cancel them; the stock is reserved with the inventory.",
)
