"""Users: who may order. Full REST under /users.

views.py        routes
logic.py        the rules; knows neither Flask nor SQL
schemas.py      what crosses the wire
events.py       what it says
repository.py   every query, and with each change the event that tells of it
models.py       its tables, its alone
demo.py         User1 … User100
migrations/     Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.users import demo
from app.services.users.events import outbox
from app.services.users.models import metadata
from app.services.users.views import api

service = Service(
    "users",
    blueprints=(api,),
    prefixes=("/users",),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    seed=demo.seed,
    outbox=outbox,
    description="People who order: list, read, create, replace, change and remove them.",
)
