"""The users service, as ``mesh run`` serves it."""

from __future__ import annotations

from app import service
from app import settings as settings_room
from app.asgi import Process


def make(url: str) -> Process:
    return Process(service.load("users"), settings_room.load(), url)
