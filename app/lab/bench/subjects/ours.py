"""Flask on this house's bridge, and nothing else of it."""

from __future__ import annotations

from typing import Any

from app.lab.bench.subjects import views
from app.web import AsyncFlask


def make(url: str) -> Any:
    return views.add_views(AsyncFlask("lab")).asgi_app
