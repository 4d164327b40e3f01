"""The routes of users: parse, call the logic, serialise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.auth import owner, public, requires
from app.data import pagination
from app.data.pagination import PageQuery
from app.services.users import logic
from app.services.users.logic import User
from app.services.users.repository import UserRepository, tag_of
from app.services.users.schemas import Profile, UserChanges, UserIn, UserOut, UserPage, UserPath
from app.web import API, cache, cached, current_key, database, expected, idempotent, may, tagged, versioned

api = API("users", __name__, prefix="/users", tag="users")

_users = UserRepository(database)

_ADMIN = requires("users:admin")
_MAY_READ = requires("users:read") & owner(of="user_id") | _ADMIN
_MAY_WRITE = requires("users:write") & owner(of="user_id") | _ADMIN

# The same address shows more to some.
_BY_ASKER = {"Vary": "Authorization"}

Shown = tuple[UserOut, int, dict[str, str]]


@api.get("", responses={200: UserPage})
@_ADMIN
async def browse(query: PageQuery) -> tuple[UserPage, int, dict[str, str]]:
    """List users, by id."""
    page = await _users.page(limit=query.limit, cursor=query.cursor)
    return UserPage.model_validate(page), 200, pagination.links("/users", page, limit=query.limit)


@api.post("", responses={201: UserOut})
@_ADMIN
@idempotent
@versioned
async def create(body: UserIn) -> Shown:
    """Create a user."""
    now = datetime.now(UTC)
    user = await logic.register(_users, name=body.name, email=body.email, now=now, request_key=current_key())
    return _all_of(user, status=201, headers={"Location": f"/users/{user.id}"})


@api.get("/<int:user_id>", responses={200: UserOut})
@public
@versioned
async def read(path: UserPath) -> Shown | tuple[Profile, int, dict[str, str]]:
    """Read one user: everybody the name, the user and administrators all of it."""
    kept = await _kept(path.user_id)
    if may(_MAY_READ):
        return tagged(UserOut.model_validate(kept), kept["version"], headers=_BY_ASKER)
    return tagged(Profile.model_validate(kept), kept["version"], variant="profile", headers=_BY_ASKER)


@api.put("/<int:user_id>", responses={200: UserOut})
@_MAY_WRITE
@versioned
async def replace(path: UserPath, body: UserIn) -> Shown:
    """Replace a user; the id and the time of creation stay."""
    return _all_of(await _change(path.user_id, body.model_dump()))


@api.patch("/<int:user_id>", responses={200: UserOut})
@_MAY_WRITE
@versioned
async def change(path: UserPath, body: UserChanges) -> Shown:
    """Change a part of a user."""
    return _all_of(await _change(path.user_id, body.model_dump(exclude_unset=True)))


@api.delete("/<int:user_id>", responses={204: None})
@_MAY_WRITE
@versioned
async def remove(path: UserPath) -> tuple[str, int]:
    """Remove a user."""
    await logic.remove(path.user_id, _users, expected=expected())
    await cache.invalidate(tag_of(path.user_id))
    return "", 204


async def _change(user_id: int, changes: Mapping[str, str]) -> User:
    user = await logic.change(user_id, changes, _users, expected=expected())
    # The others will hear of it by the outbox. Whoever has made the change and asks here again finds it at once.
    await cache.invalidate(tag_of(user_id))
    return user


# That somebody is not there is not kept: it changes without an event.
@cached(tags=lambda user_id: (tag_of(user_id),), negative=0)
async def _kept(user_id: int) -> dict[str, Any]:
    """What can be shown of a user, and its version. Raises: NotFound."""
    user = await logic.read(user_id, _users)
    return {**UserOut.model_validate(user).model_dump(mode="json"), "version": user.version}


def _all_of(user: User, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Shown:
    return tagged(UserOut.model_validate(user), user.version, status=status, headers=headers)
