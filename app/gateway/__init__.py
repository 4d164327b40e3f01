"""The public edge: routes by what the services announce, and knows nothing of them beforehand.

proxy        the ASGI application: own paths go to Flask, everything else to the service that announced it
target       what a request aims at: checked once, passed on byte for byte
guard        what the edge asks of whoever comes in, below which prefix
headers      which headers pass, either way
upload       the request's body: whole if small, else as a stream
index        ``/``: the public prefixes
documents    ``/docs``: the API documents of all services
"""

from __future__ import annotations

from typing import Any

from app.gateway.documents import documents
from app.gateway.guard import EdgeGuard
from app.gateway.index import api
from app.gateway.proxy import Edge
from app.resources import Resources
from app.service import GATEWAY, Service


def front(app: Any, resources: Resources) -> Edge:
    """The gateway's ASGI application around its Flask application `app`."""
    settings = resources.settings
    return Edge(
        app,
        resources.mesh,
        guard=EdgeGuard(resources.auth, resources.settings.auth.edge),
        max_body_bytes=settings.max_body_bytes,
        timeout_seconds=settings.request_timeout_seconds,
        trusted_proxies=settings.trusted_proxies,
    )


service = Service(
    GATEWAY,
    blueprints=(api, documents),
    front=front,
    description="The public edge: hands each request to the service that announced its path.",
)
