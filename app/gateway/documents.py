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
    return page(
        "Flask Mesh",
        [*((name, f"docs/{name}.json") for name in others), (GATEWAY, "openapi.json")],
        events=[(name, f"docs/{name}.asyncapi.json") for name in others],
    )


@documents.get("/docs/<name>.json")
async def document(name: str) -> Response:
    """The OpenAPI document of one service, from one of its instances."""
    return await _fetch(name, "/openapi.json")


@documents.get("/docs/<name>.asyncapi.json")
async def events(name: str) -> Response:
    """Its AsyncAPI document."""
    return await _fetch(name, "/asyncapi.json")


async def _fetch(service: str, path: str) -> Response:
    if service not in mesh.directory.services():
        raise NotFound("No such service")
    reply = await mesh.get(service, path, timeout=_TIMEOUT_SECONDS)
    return Response(reply.expect(200).body, content_type="application/json")
