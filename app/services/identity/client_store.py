"""Every query of clients and of the assertions that they have used; each method is one transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import Database, Duplicate, changes
from app.services.identity.client import Client
from app.services.identity.models import assertions, clients


class ClientStore:
    """The clients of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, client_id: str) -> Client | None:
        query = select(clients).where(clients.c.client_id == client_id)
        row = (await self._database.read(lambda session: session.execute(query), fresh=True)).one_or_none()
        return None if row is None else _client(row)

    async def add(self, client: Client, *, now: datetime) -> bool:
        """False if there is a client of this id already: it stays as it is."""
        statement = insert(clients).values(**_columns(client), created_at=now)
        try:
            await self._database.transact(lambda session: session.execute(statement))
        except Duplicate:
            return False
        return True

    async def every(self) -> list[Client]:
        """All of them, by id."""
        query = select(clients).order_by(clients.c.client_id)
        return [_client(row) for row in await self._database.read(lambda session: session.execute(query), fresh=True)]

    async def of_demo(self) -> list[str]:
        """The ids of those whose secret is the demo's."""
        query = select(clients.c.client_id).where(clients.c.demo.is_(True)).order_by(clients.c.client_id)
        return list(await self._database.read(lambda session: session.scalars(query), fresh=True))

    async def rotate_secret(
        self, client_id: str, secret_digest: str, *, until: datetime, demo: bool | None = None
    ) -> bool:
        """Give a client another secret; the one before counts until `until`. False if there is no such client.

        Args:
            demo: whether the new one is the demo's; None: as before.
        """
        this = clients.c.client_id == client_id

        async def work(session: AsyncSession) -> bool:
            # Read first: MySQL would move what the same statement has just written.
            old = await session.scalar(select(clients.c.secret_digest).where(this).with_for_update())
            values: dict[str, Any] = {
                "secret_digest": secret_digest,
                "old_secret_digest": old,
                "old_secret_until": until,
            }
            if demo is not None:
                values["demo"] = demo
            return await changes.count(session, update(clients).where(this).values(values)) == 1

        return await self._database.transact(work)

    async def renew_demo(self, client: Client) -> None:
        """Give a demo client its present secret and scopes, at once; other clients are left alone."""
        changed = {name: _columns(client)[name] for name in ("secret_digest", "scope", "audiences")}
        this = (clients.c.client_id == client.client_id, clients.c.demo.is_(True))
        await self._database.transact(lambda session: session.execute(update(clients).where(*this).values(changed)))

    async def use_assertion(self, digest: str, *, expires_at: datetime) -> bool:
        """Note that an assertion was used; False if it had been before."""
        statement = insert(assertions).values(digest=digest, expires_at=expires_at)
        try:
            await self._database.transact(lambda session: session.execute(statement))
        except Duplicate:
            return False
        return True


def _client(row: Any) -> Client:
    return Client(
        client_id=row.client_id,
        name=row.name,
        auth_method=row.auth_method,
        grant_types=tuple(row.grant_types.split()),
        scopes=tuple(row.scope.split()),
        audiences=tuple(row.audiences.split()),
        redirect_uris=tuple(row.redirect_uris.split()),
        logout_uris=tuple(row.logout_uris.split()),
        secret_digest=row.secret_digest,
        old_secret_digest=row.old_secret_digest,
        old_secret_until=row.old_secret_until,
        jwks=row.jwks,
        trusted=row.trusted,
        demo=row.demo,
    )


def _columns(client: Client) -> dict[str, Any]:
    return {
        "client_id": client.client_id,
        "name": client.name,
        "auth_method": client.auth_method,
        "secret_digest": client.secret_digest,
        "old_secret_digest": client.old_secret_digest,
        "old_secret_until": client.old_secret_until,
        "jwks": client.jwks,
        "grant_types": " ".join(client.grant_types),
        "redirect_uris": " ".join(client.redirect_uris),
        "logout_uris": " ".join(client.logout_uris),
        "scope": " ".join(client.scopes),
        "audiences": " ".join(client.audiences),
        "trusted": client.trusted,
        "demo": client.demo,
    }
