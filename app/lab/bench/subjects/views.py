"""The views that every side shares."""

from __future__ import annotations

import asyncio
from typing import Any

WAIT_SECONDS = 0.1
USER_PATH, USER_RULE = "/users/7", "/users/<int:user_id>"
WAIT_PATH = WAIT_RULE = "/wait"
ORDER_PATH, ORDER_RULE = "/orders/7", "/orders/<int:order_id>"

# Whom the hop calls, where the caller has no registry to ask.
PEER_URL = "LAB_PEER_URL"
PEER_SERVICE = "users"


async def user(user_id: int) -> dict[str, Any]:
    """Answer at once."""
    return {"id": user_id, "name": f"User{user_id}"}


async def wait() -> dict[str, Any]:
    """Wait as for a slow peer, then answer."""
    await asyncio.sleep(WAIT_SECONDS)
    return {"waited": WAIT_SECONDS}


def order(order_id: int, owner: Any) -> dict[str, Any]:
    """What a hop answers: something of its own around the peer's answer."""
    return {"id": order_id, "user": owner}


def add_views(app: Any) -> Any:
    """Put `user` and `wait` on a Flask, a Quart or a blueprint."""
    app.add_url_rule(USER_RULE, "user", user)
    app.add_url_rule(WAIT_RULE, "wait", wait)
    return app
