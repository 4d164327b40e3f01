"""``/_mesh``: what this process knows and decides, for who may know it.

It names addresses, versions and loads, so it is for operators and not for the public: it answers with 404, as any
unknown path does, unless the management token comes along; without a configured token it answers nobody.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import asdict
from typing import Any

import orjson
from flask import Blueprint, Response, abort, request

from app.auth import public
from app.mesh.registry import rules
from app.mesh.registry.directory import Directory
from app.resources import Resources
from app.settings import Settings
from app.web.views.current import resources

# It has a guard of its own, and to all others it is not there.
management = public(Blueprint("management", __name__))

_SCHEME = "Bearer "


@management.get("/_mesh")
async def inspect() -> Response:
    if not may_see(resources.settings, request.headers.get("Authorization", "")):
        abort(404)
    body = orjson.dumps(describe(resources), default=str)
    return Response(body, content_type="application/json", headers={"Cache-Control": "no-store"})


def may_see(settings: Settings, authorization: str) -> bool:
    """Whether the header's value carries the token; takes as long for a nearly right one as for any."""
    if settings.management_token is None or not authorization.startswith(_SCHEME):
        return False
    expected = settings.management_token.get_secret_value().encode()
    return bool(expected) and hmac.compare_digest(expected, authorization.removeprefix(_SCHEME).encode())


def describe(own: Resources) -> dict[str, Any]:
    """All of it, as plain values."""
    instance = own.mesh.instance
    return {
        "instance": asdict(instance),
        "uptime_seconds": max(0.0, round(time.time() - instance.started_at, 3)),
        "requests_in_flight": own.metrics.requests_in_flight,
        "admission": None if own.admission is None else own.admission.explain(),
        "membership": repr(own.mesh.membership),
        "directory": _directory(own.mesh.directory),
        **{name: room.describe() for name, room in own.rooms.items()},
    }


def _directory(directory: Directory) -> dict[str, Any]:
    table = directory.table
    return {
        "healthy": directory.healthy,
        "age_seconds": directory.age_seconds,
        "position": asdict(directory.position),
        "suspects": directory.suspects,
        "services": {name: [asdict(peer) for peer in peers] for name, peers in table.instances.items()},
        "rules": {name: rules.describe(rule) for name, rule in table.rules.items()},
    }
