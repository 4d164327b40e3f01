"""What goes on while identity serves: whoever verifies tokens hears again which sessions have ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

from app import telemetry
from app.data import Database
from app.errors import PlatformError
from app.resources import Resources
from app.services.identity import client_admin
from app.services.identity.token_store import TokenStore
from app.settings import Settings

_log = telemetry.log("identity.alongside")


@asynccontextmanager
async def alongside(resources: Resources) -> AsyncIterator[None]:
    """Put up what ended lately: a Redis that has lost its memory learns it from us, as from every process that knows.

    Raises:
        Misconfigured: it is in production, with clients of the demo.
    """
    if resources.settings.env == "production":
        await client_admin.refuse_demo(cast(Database, resources.database))
    try:
        store = TokenStore(cast(Database, resources.database))
        life = longest_life(resources.settings)
        ended = await store.recently_revoked(datetime.now(UTC) - life)
        await resources.revoked_sessions.post({sid: (at + life).timestamp() for sid, at in ended})
    except PlatformError as error:
        # It is told again with the next start; what ends from now on is told when it does.
        _log.warning("ended sessions could not be told again", reason=error.code)
    yield


def longest_life(settings: Settings) -> timedelta:
    """How long a token may be valid for somebody: its life, and the difference of two clocks."""
    return timedelta(seconds=settings.identity.access_token_seconds + settings.auth.leeway_seconds)
