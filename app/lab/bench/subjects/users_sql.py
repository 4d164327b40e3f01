"""The users service's own read, without its cache: each request asks the database."""

from __future__ import annotations

from dataclasses import replace

from app import service
from app import settings as settings_room
from app.asgi import Process
from app.auth import public
from app.services.users import logic
from app.services.users.repository import UserRepository
from app.services.users.schemas import Profile, UserPath
from app.web import API, database

_api = API("users", __name__, prefix="/users", tag="users")
_users = UserRepository(database)


@_api.get("/<int:user_id>", responses={200: Profile})
@public
async def read(path: UserPath) -> Profile:
    """Read one user."""
    return Profile.model_validate(await logic.read(path.user_id, _users))


def make(url: str) -> Process:
    uncached = replace(service.load("users"), blueprints=(_api,), seed=None)
    return Process(uncached, settings_room.load(), url)
