"""`reads`: GET /users/{id}, each user in turn, from PostgreSQL and from a cache; against FastAPI doing the same."""

from __future__ import annotations

from app import service
from app import settings as settings_room
from app.data import Database, migrations
from app.errors import Unavailable
from app.lab.bench import databases
from app.lab.bench.lab import CPU, RATE, UNDER_LOAD, Lab
from app.lab.bench.model import Comparison, Limit, Result, Subject
from app.lab.bench.subjects import views
from app.lab.figures import Goal
from app.services.users import demo

OURS = Subject("ours", "users service, from PostgreSQL", "users_sql", "mesh_run")
OURS_CACHED = Subject("ours-cached", "users service, from its cache", "users", "mesh_run")
FASTAPI = Subject("fastapi", "FastAPI, SQLAlchemy, asyncpg, uvicorn: from PostgreSQL", "fastapi_users", "uvicorn")
FASTAPI_CACHED = Subject("fastapi-cached", "the same, from Redis", "fastapi_users_cached", "uvicorn")
SUBJECTS = (OURS, OURS_CACHED, FASTAPI, FASTAPI_CACHED)
AT_LEAST = Goal("at least", 1.0)


async def run(lab: Lab) -> Result:
    await lab.require_redis()
    subjects = lab.options.chosen(SUBJECTS)
    async with databases.postgresql() as url:
        if url is None:
            raise Unavailable("This benchmark needs a PostgreSQL: POSTGRES_URL names one")
        await _prepare(url)
        samples = await lab.rounds(
            "reads",
            subjects,
            lambda process: lab.under_load(process, views.USER_PATH),
            ready=views.USER_PATH,
            extra={"DATABASE_URL": url},
        )
    return Result(
        "reads",
        f"GET {views.USER_PATH}; {lab.options.connections} connections",
        (
            "The whole users service: request context, deadline, metrics, access log, rules; the others have none of it.",
            "Ours caches in the process, told by Redis when a user has changed; the other side asks Redis each time.",
        ),
        subjects,
        UNDER_LOAD,
        tuple(samples),
        (
            Comparison(OURS.key, FASTAPI.key, (CPU.key, RATE.key), AT_LEAST),
            Comparison(OURS_CACHED.key, FASTAPI_CACHED.key, (CPU.key, RATE.key), AT_LEAST),
            Comparison(OURS_CACHED.key, FASTAPI.key, (CPU.key, RATE.key)),
        ),
        tuple(Limit(subject.key, "errors", Goal("at most", 0)) for subject in subjects),
    )


async def _prepare(url: str) -> None:
    """The tables and the users of the demo."""
    await migrations.upgrade(service.load("users"), url)
    settings = settings_room.load()
    database = Database(url, settings.data)
    try:
        await demo.seed(database, settings)
    finally:
        await database.close()
