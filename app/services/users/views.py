"""The routes of users: parse, call the logic, serialise."""

from __future__ import annotations

from datetime import UTC, datetime

from app.data import pagination
from app.data.pagination import PageQuery
from app.services.users import logic
from app.services.users.repository import UserRepository
from app.services.users.schemas import UserChanges, UserIn, UserOut, UserPage, UserPath
from app.web import API, database

api = API("users", __name__, prefix="/users", tag="users")

_users = UserRepository(database)


@api.get("", responses={200: UserPage})
async def browse(query: PageQuery) -> tuple[UserPage, int, dict[str, str]]:
    """List users, by id."""
    page = await _users.page(limit=query.limit, cursor=query.cursor)
    return UserPage.model_validate(page), 200, pagination.links("/users", page, limit=query.limit)


@api.post("", responses={201: UserOut})
async def create(body: UserIn) -> tuple[UserOut, int, dict[str, str]]:
    """Create a user."""
    user = await logic.register(_users, name=body.name, email=body.email, now=datetime.now(UTC))
    return UserOut.model_validate(user), 201, {"Location": f"/users/{user.id}"}


@api.get("/<int:user_id>", responses={200: UserOut})
async def read(path: UserPath) -> UserOut:
    """Read one user."""
    return UserOut.model_validate(await logic.read(path.user_id, _users))


@api.put("/<int:user_id>", responses={200: UserOut})
async def replace(path: UserPath, body: UserIn) -> UserOut:
    """Replace a user; the id and the time of creation stay."""
    return UserOut.model_validate(await logic.change(path.user_id, body.model_dump(), _users))


@api.patch("/<int:user_id>", responses={200: UserOut})
async def change(path: UserPath, body: UserChanges) -> UserOut:
    """Change a part of a user."""
    changes = body.model_dump(exclude_unset=True)
    return UserOut.model_validate(await logic.change(path.user_id, changes, _users))


@api.delete("/<int:user_id>", responses={204: None})
async def remove(path: UserPath) -> tuple[str, int]:
    """Remove a user."""
    await logic.remove(path.user_id, _users)
    return "", 204
