"""Users: who may order. Full REST under /users.

views.py        routes
logic.py        the rules; knows neither Flask nor SQL
schemas.py      what crosses the wire
repository.py   every query
models.py       its tables, its alone
demo.py         User1 … User100
migrations/     Alembic revisions
"""

from pathlib import Path

from app.service import Service
from app.services.users import demo
from app.services.users.models import metadata
from app.services.users.views import api

service = Service(
    "users",
    blueprints=(api,),
    prefixes=("/users",),
    models=metadata,
    migrations=Path(__file__).parent / "migrations" / "versions",
    seed=demo.seed,
    description="People who order: list, read, create, replace, change and remove them.",
)
