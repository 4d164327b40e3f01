"""FastAPI that calls the peer with httpx: one client for the process, with room for every connection."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from typing import Any

import httpx
from fastapi import FastAPI

from app.lab.bench.subjects import views

# By default it would keep 20 connections and close the others after each call.
_LIMITS = {"max_connections": 256, "max_keepalive_connections": 256}


def make(url: str) -> Any:
    client = httpx.AsyncClient(base_url=os.environ[views.PEER_URL], limits=httpx.Limits(**_LIMITS))

    async def read_order(order_id: int) -> dict[str, Any]:
        reply = await client.get(f"/users/{order_id}")
        return views.order(order_id, reply.json())

    app = FastAPI(title="lab")
    app.add_api_route("/orders/{order_id}", read_order, methods=["GET"])
    return app
