"""As `fastapi_users`, with the answer kept in Redis for a minute: redis-py with hiredis, one GET per request."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from typing import Any

import redis.asyncio
from fastapi import FastAPI

from app.lab.bench.subjects.fastapi_users import Profile, find, sessions

_SECONDS = 60


def make(url: str) -> Any:
    app = FastAPI(title="lab")
    cache = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])
    prefix = os.environ["MESH_REGISTRY__NAMESPACE"]

    async def read(user_id: int) -> Profile:
        key = f"{prefix}:user:{user_id}"
        kept = await cache.get(key)
        if kept is not None:
            return Profile.model_validate_json(kept)
        async with sessions() as database:
            profile = await find(user_id, database)
        await cache.set(key, profile.model_dump_json(), ex=_SECONDS)
        return profile

    app.add_api_route("/users/{user_id}", read, methods=["GET"])
    return app
