"""A whole service, as ``mesh run`` serves it: request context, deadline, metrics, access log, registry, problems."""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from app import settings as settings_room
from app.asgi import Process
from app.auth import public
from app.lab.bench.subjects import views
from app.service import Service
from app.web import mesh


async def read_order(order_id: int) -> dict[str, Any]:
    reply = await mesh.get(views.PEER_SERVICE, f"/users/{order_id}")
    return views.order(order_id, reply.json())


def make(url: str) -> Process:
    blueprint = views.add_views(public(Blueprint("lab", __name__)))
    blueprint.add_url_rule(views.ORDER_RULE, "order", read_order)
    return Process(Service("lab", blueprints=(blueprint,)), settings_room.load(), url)
