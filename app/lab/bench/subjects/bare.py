"""ASGI with nothing on it: what is left is the server."""

from __future__ import annotations

from typing import Any

import orjson

from app.lab.bench.subjects import views


def make(url: str) -> Any:
    return app


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    path = scope["path"]
    answer = await (views.wait() if path == views.WAIT_PATH else views.user(int(path.rpartition("/")[2])))
    body = orjson.dumps(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
