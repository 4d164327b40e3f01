"""Stock Flask that calls the peer with requests: one session, whose pool has room for every thread."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import os
from typing import Any

import requests
from flask import Flask
from requests.adapters import HTTPAdapter

from app.lab.bench.subjects import views

_POOL = 256
_TIMEOUT_SECONDS = 10


def make(url: str) -> Any:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_connections=_POOL, pool_maxsize=_POOL))
    peer = os.environ[views.PEER_URL]

    def read_order(order_id: int) -> dict[str, Any]:
        reply = session.get(f"{peer}/users/{order_id}", timeout=_TIMEOUT_SECONDS)
        return views.order(order_id, reply.json())

    app = Flask("lab")
    app.add_url_rule(views.ORDER_RULE, "order", read_order)
    return app
