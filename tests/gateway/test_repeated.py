"""A request whose answer is lost on its way to the edge, which then asks again."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse

from app import service, settings
from app.asgi import Process
from app.data import migrations
from tests.faults import proxy
from tests.faults.proxy import Proxy
from tests.gateway.conftest import House, until
from tests.services.conftest import served
from tests.tokens import TestIssuer, bearer

ADA = {"name": "Ada", "email": "ada@example.com"}


@dataclass
class Losing:
    """ASGI middleware: the line is cut when an answer to a POST is about to leave, so many times."""

    app: Any
    line: Proxy
    times: int = 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def lose(message: Any) -> None:
            if scope["method"] == "POST" and message["type"] == "http.response.start" and self.times > 0:
                self.times -= 1
                self.line.reset()
            await send(message)

        await self.app(scope, receive, lose)


@pytest.fixture
async def losing(house: House, issuer: TestIssuer, tmp_path: Path) -> AsyncIterator[Losing]:
    """The users service, behind a line that loses answers."""
    users = service.load("users")
    url = f"sqlite+aiosqlite:///{tmp_path / 'users.sqlite3'}"
    config = settings.load(
        redis_url=house.settings.redis_url,
        database_url=url,
        data_dir=tmp_path,
        registry={"namespace": house.settings.registry.namespace},
        auth={"jwks_file": issuer.jwks_file},
    )
    await migrations.upgrade(users, url)
    listener = socket.create_server(("127.0.0.1", 0))
    async with AsyncExitStack() as stack:
        line = stack.enter_context(proxy.to("127.0.0.1", listener.getsockname()[1]))
        process = Process(users, config, f"http://127.0.0.1:{line.port}")
        await stack.enter_async_context(served(process, listener))
        await until(lambda: house.edge.mesh.directory.instances("users"))
        process.entry.app = losing = Losing(process.entry.app, line)
        yield losing


async def post(house: House, token: str, **headers: str) -> tuple[ClientResponse, Any]:
    given = {**bearer(token), **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with house.client.post(f"{house.url}/users", json=ADA, headers=given) as response:
        return response, json.loads(await response.read())


async def emails(house: House, token: str) -> list[str]:
    async with house.client.get(f"{house.url}/users", headers=bearer(token)) as response:
        return [user["email"] for user in json.loads(await response.read())["items"]]


async def test_an_answer_that_was_lost_is_given_once_more(house: House, losing: Losing, issuer: TestIssuer) -> None:
    token = issuer.user("admin")
    response, made = await post(house, token, Idempotency_Key="k")
    assert (response.status, losing.times) == (201, 0)
    assert response.headers["Idempotency-Replayed"] == "true"
    assert (response.headers["Location"], response.headers["ETag"]) == (f"/users/{made['id']}", '"1"')
    assert await emails(house, token) == [ADA["email"]]


async def test_without_a_key_nobody_asks_again(house: House, losing: Losing, issuer: TestIssuer) -> None:
    token = issuer.user("admin")
    response, problem = await post(house, token)
    assert (response.status, losing.times) == (503, 0)
    assert problem["code"] == "peer_unreachable"
    assert await emails(house, token) == [ADA["email"]]
