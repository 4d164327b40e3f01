"""``/docs``: the API documents of all services on one page, as they are now."""

from __future__ import annotations

from flask import Blueprint, Response

from app.auth import public
from app.errors import NotFound
from app.service import GATEWAY
from app.web import mesh
from app.web.health import page

documents = public(Blueprint("documents", __name__))

_TIMEOUT_SECONDS = 5.0


# Registered before the page that every service has under this path, and so in its place.
@documents.get("/docs")
async def docs() -> str:
    others = [name for name in mesh.directory.services() if name != GATEWAY]
    return page("Flask Mesh", [*((name, f"docs/{name}.json") for name in others), (GATEWAY, "openapi.json")])


@documents.get("/docs/<name>.json")
async def document(name: str) -> Response:
    """The OpenAPI document of one service, from one of its instances."""
    if name not in mesh.directory.services():
        raise NotFound("No such service")
    reply = await mesh.get(name, "/openapi.json", timeout=_TIMEOUT_SECONDS)
    return Response(reply.expect(200).body, content_type="application/json")
