"""Quart."""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any

from quart import Quart

from app.lab.bench.subjects import views


def make(url: str) -> Any:
    return views.add_views(Quart("lab"))
