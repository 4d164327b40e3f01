"""The clients of this process's database."""

from __future__ import annotations

from app.services.identity.client import Client
from app.services.identity.client_store import ClientStore
from app.web import database

__all__ = ["Client", "find", "store"]

store = ClientStore(database)


async def find(client_id: str) -> Client | None:
    # No client has it, and PostgreSQL would not take it.
    return None if "\0" in client_id else await store.find(client_id)
