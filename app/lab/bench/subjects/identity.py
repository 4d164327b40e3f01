"""The authorization server, as ``mesh run`` serves it; whoever measures it has prepared its database."""

from __future__ import annotations

from app import service
from app import settings as settings_room
from app.asgi import Process


def make(url: str) -> Process:
    return Process(service.load(service.IDENTITY), settings_room.load(), url)
