"""The routes of users: parse, call the logic, serialise."""

from __future__ import annotations

from datetime import UTC, datetime

from app.auth import owner, public, requires
from app.data import pagination
from app.data.pagination import PageQuery
from app.services.users import logic
from app.services.users.repository import UserRepository
from app.services.users.schemas import Profile, UserChanges, UserIn, UserOut, UserPage, UserPath
from app.web import API, database, may

api = API("users", __name__, prefix="/users", tag="users")

_users = UserRepository(database)

_ADMIN = requires("users:admin")
_MAY_READ = requires("users:read") & owner(of="user_id") | _ADMIN
_MAY_WRITE = requires("users:write") & owner(of="user_id") | _ADMIN


@api.get("", responses={200: UserPage})
@_ADMIN
async def browse(query: PageQuery) -> tuple[UserPage, int, dict[str, str]]:
    """List users, by id."""
    page = await _users.page(limit=query.limit, cursor=query.cursor)
    return UserPage.model_validate(page), 200, pagination.links("/users", page, limit=query.limit)


@api.post("", responses={201: UserOut})
@_ADMIN
async def create(body: UserIn) -> tuple[UserOut, int, dict[str, str]]:
    """Create a user."""
    user = await logic.register(_users, name=body.name, email=body.email, now=datetime.now(UTC))
    return UserOut.model_validate(user), 201, {"Location": f"/users/{user.id}"}


@api.get("/<int:user_id>", responses={200: UserOut})
@public
async def read(path: UserPath) -> UserOut | Profile:
    """Read one user: everybody the name, the user and administrators all of it."""
    user = await logic.read(path.user_id, _users)
    return UserOut.model_validate(user) if may(_MAY_READ) else Profile.model_validate(user)


@api.put("/<int:user_id>", responses={200: UserOut})
@_MAY_WRITE
async def replace(path: UserPath, body: UserIn) -> UserOut:
    """Replace a user; the id and the time of creation stay."""
    return UserOut.model_validate(await logic.change(path.user_id, body.model_dump(), _users))


@api.patch("/<int:user_id>", responses={200: UserOut})
@_MAY_WRITE
async def change(path: UserPath, body: UserChanges) -> UserOut:
    """Change a part of a user."""
    changes = body.model_dump(exclude_unset=True)
    return UserOut.model_validate(await logic.change(path.user_id, changes, _users))


@api.delete("/<int:user_id>", responses={204: None})
@_MAY_WRITE
async def remove(path: UserPath) -> tuple[str, int]:
    """Remove a user."""
    await logic.remove(path.user_id, _users)
    return "", 204
