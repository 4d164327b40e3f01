"""Which scopes the API has: of every service that there is, so that a new one is a folder and nothing else."""

from __future__ import annotations

from functools import cache

from app.service import GATEWAY, IDENTITY, discover
from app.services.identity import scopes


@cache
def of_api() -> tuple[str, ...]:
    """``users:read``, ``users:write``, ``users:admin`` and so on; a client may be registered for others as well."""
    return scopes.of_services(name for name in discover() if name not in (GATEWAY, IDENTITY))
