"""A whole service with one view twice: for everybody, and for whoever has a token with a scope."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from app import settings as settings_room
from app.asgi import Process
from app.auth import public, requires
from app.service import Service

OPEN_PATH, GUARDED_PATH = "/open/7", "/guarded/7"
SCOPE = "users:read"

_blueprint = Blueprint("lab", __name__)


@_blueprint.get("/open/<int:user_id>")
@public
async def read_openly(user_id: int) -> dict[str, Any]:
    return {"id": user_id, "name": f"User{user_id}"}


@_blueprint.get("/guarded/<int:user_id>")
@requires(SCOPE)
async def read(user_id: int) -> dict[str, Any]:
    return {"id": user_id, "name": f"User{user_id}"}


def make(url: str) -> Process:
    return Process(Service("lab", blueprints=(_blueprint,)), settings_room.load(), url)
