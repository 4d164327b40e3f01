"""Orders: who has ordered what. It asks users over the mesh, and comes to terms with the inventory by events.

views.py        routes, under /orders
logic.py        how an order comes to its end; knows no Flask, SQL or HTTP
waiting.py      how a client waits for that
peers.py        users, as the mesh reaches them
events.py       what it says, and what it reads of the inventory
handlers.py     what it does when it hears of that
schemas.py      what crosses the wire
repository.py   every query, and with each change the event that tells of it
models.py       its tables, its alone
migrations/     Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.orders.events import outbox
from app.services.orders.handlers import handlers
from app.services.orders.models import metadata
from app.services.orders.views import api

service = Service(
    "orders",
    blueprints=(api,),
    prefixes=("/orders",),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    outbox=outbox,
    handlers=handlers,
    calls=("users",),
    description="Orders: place, list, read and cancel them; by events, the inventory reserves the stock or refuses.",
)
