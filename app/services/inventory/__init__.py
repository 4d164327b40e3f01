"""Inventory: what is in stock, and who has reserved some of it. Full REST under /inventory; orders come as events.

views.py        routes
logic.py        the rules of items and reservations; knows neither Flask nor SQL
events.py       what it says, and what it reads of orders
handlers.py     what it does when it hears of one
schemas.py      what crosses the wire
repository.py   every query; stock is taken by conditional updates, so it never falls below zero
models.py       its tables, its alone
demo.py         a dozen items, one of them out of stock
migrations/     Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.inventory import demo
from app.services.inventory.events import outbox
from app.services.inventory.handlers import handlers
from app.services.inventory.models import metadata
from app.services.inventory.views import api

service = Service(
    "inventory",
    blueprints=(api,),
    prefixes=("/inventory",),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    seed=demo.seed,
    outbox=outbox,
    handlers=handlers,
    description="Items in stock, and reservations of several of them at once, for orders: all or nothing.",
)
