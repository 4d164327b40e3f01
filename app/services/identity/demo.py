"""Demo accounts and clients, for development. Their secrets are made on the first start, and are nowhere in the code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import BaseModel

from app.data import Database
from app.errors import Conflict, Misconfigured
from app.services.identity import catalogue, client_auth, passwords, scopes
from app.services.identity.account_store import AccountStore
from app.services.identity.client import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PUBLIC,
    REFRESH_TOKEN,
    TOKEN_EXCHANGE,
    Client,
    digest,
)
from app.services.identity.client_store import ClientStore
from app.settings import Settings

DEMO_CLIENT = "demo-client"
AUDIENCE = "mesh"
CALLBACK = "http://127.0.0.1/callback"


class Secrets(BaseModel):
    """What is read of the file of secrets that `mesh up` makes on its first start."""

    accounts: dict[str, str]
    clients: dict[str, str]


async def seed(database: Database, settings: Settings) -> None:
    """The demo's accounts and clients, with the secrets in the data directory; without those, nobody.

    Raises:
        Misconfigured: the file is there, and is none of ours.
    """
    file = settings.secrets_file
    if not file.exists():
        return
    try:
        known = Secrets.model_validate_json(file.read_bytes())
    except ValueError:
        raise Misconfigured(
            f"{file} is not a file of secrets: move it away, and the next start makes another"
        ) from None
    await seed_with(database, accounts=known.accounts, clients=known.clients, issuer=settings.auth.issuer)


async def seed_with(
    database: Database, *, accounts: Mapping[str, str], clients: Mapping[str, str], issuer: str
) -> None:
    """Put the demo's accounts and clients where they are missing; a client's secret that has changed is changed.

    Args:
        accounts: user name → password: ``admin``, and ``user7`` with the subject 7.
        clients: client id → secret: the services and ``demo-client``.
        issuer: the public address, where the demo's people are sent back to after a logout.
    """
    now = datetime.now(UTC)
    await _seed_accounts(AccountStore(database), accounts, now)
    store = ClientStore(database)
    services = tuple(name for name in clients if name != DEMO_CLIENT)
    confidential = [_service(name, services, secret) for name, secret in clients.items() if name != DEMO_CLIENT]
    if DEMO_CLIENT in clients:
        confidential.append(_demo_client(clients[DEMO_CLIENT]))
    for client in (*confidential, *_public(issuer)):
        if not await store.add(client, now=now):
            await store.renew_demo(client)


async def _seed_accounts(store: AccountStore, accounts: Mapping[str, str], now: datetime) -> None:
    for username, password in accounts.items():
        if await store.find_by_username(username) is not None:
            continue
        number = username.removeprefix("user")
        try:
            await store.add(
                subject=number if number.isdigit() else username,
                username=username,
                name=username.capitalize(),
                email=f"{username}@example.com",
                password_hash=await passwords.hash_password(password),
                roles=(scopes.ADMIN,) if username == scopes.ADMIN else (),
                created_at=now,
            )
        except Conflict:
            # Another process was faster.
            continue


def _service(name: str, services: tuple[str, ...], secret: str) -> Client:
    return Client(
        client_id=name,
        name=name.capitalize(),
        auth_method=client_auth.BASIC,
        grant_types=(CLIENT_CREDENTIALS, TOKEN_EXCHANGE),
        # What a service may change is said by who it is (`callers`), and by whose name it calls in.
        scopes=tuple(scope for scope in catalogue.of_api() if scope.endswith(":read")),
        audiences=services,
        secret_digest=digest(secret),
        trusted=True,
        demo=True,
    )


def _demo_client(secret: str) -> Client:
    return Client(
        client_id=DEMO_CLIENT,
        name="Demo client",
        auth_method=client_auth.BASIC,
        grant_types=(CLIENT_CREDENTIALS,),
        scopes=catalogue.of_api(),
        audiences=(AUDIENCE,),
        secret_digest=digest(secret),
        demo=True,
    )


def _public(issuer: str) -> tuple[Client, ...]:
    allowed = (*scopes.OF_PERSON, *catalogue.of_api())
    return (
        Client(
            client_id="demo-web",
            name="Demo web application",
            auth_method=PUBLIC,
            grant_types=(AUTHORIZATION_CODE, REFRESH_TOKEN),
            scopes=allowed,
            audiences=(AUDIENCE,),
            redirect_uris=(CALLBACK,),
            logout_uris=(f"{issuer}/account",),
            # It stands for an application of one's own: nobody is asked whether it may. `demo-device` asks.
            trusted=True,
            demo=True,
        ),
        _device("demo-device", "Demo device", allowed, (DEVICE_CODE, REFRESH_TOKEN), trusted=False),
        _device("mesh-cli", "The mesh command", allowed, (DEVICE_CODE,), trusted=True),
    )


def _device(client_id: str, name: str, allowed: tuple[str, ...], grants: tuple[str, ...], *, trusted: bool) -> Client:
    return Client(
        client_id=client_id,
        name=name,
        auth_method=PUBLIC,
        grant_types=grants,
        scopes=allowed,
        audiences=(AUDIENCE,),
        trusted=trusted,
        demo=True,
    )
