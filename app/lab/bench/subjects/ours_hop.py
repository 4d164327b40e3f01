"""Flask on the bridge with the mesh client: no metrics, no access log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from app import redis_client
from app import settings as settings_room
from app.lab.bench.footing import REDIS_SECONDS
from app.lab.bench.subjects import views
from app.mesh import Mesh, open_mesh
from app.web import AsyncFlask


def make(url: str) -> Any:
    settings = settings_room.load()
    redis_url = settings.redis_url.get_secret_value()
    opened: list[Mesh] = []

    async def read_order(order_id: int) -> dict[str, Any]:
        reply = await opened[0].get(views.PEER_SERVICE, f"/users/{order_id}")
        return views.order(order_id, reply.json())

    async def while_serving() -> AsyncIterator[None]:
        async with (
            redis_client.open_async(redis_url, timeout_seconds=REDIS_SECONDS) as redis,
            open_mesh(redis=redis, redis_url=redis_url, settings=settings, service="lab", url=url) as mesh,
        ):
            await mesh.membership.register()
            opened.append(mesh)
            yield

    app = AsyncFlask("lab")
    app.while_serving(while_serving)
    app.add_url_rule(views.ORDER_RULE, "order", read_order)
    return app.asgi_app
