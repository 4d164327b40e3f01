"""The clients of this process's database."""

from __future__ import annotations

from app.services.identity.client import Client
from app.services.identity.client_store import ClientStore
from app.web import database, resources

__all__ = ["Client", "find", "store"]

store = ClientStore(database)


async def find(client_id: str) -> Client | None:
    """The client, if it counts here: in production, the demo's do not."""
    # No client has it, and PostgreSQL would not take it.
    found = None if "\0" in client_id else await store.find(client_id)
    return None if found is not None and found.demo and resources.settings.env == "production" else found
