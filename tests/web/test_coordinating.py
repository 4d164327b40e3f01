from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from app import settings as app_settings
from app.auth import public
from app.context import Context, activate
from app.mesh.coordination import Coordination, open_line
from app.mesh.keys import Keys
from app.service import Service
from app.web import API
from app.web.factory import ServiceApp, create_app
from app.web.views.coordinating import mesh_lock, rate_limited
from app.web.views.current import EXTENSION
from tests.web.harness import Exchange

api = public(API("things", __name__, prefix="/things"))


@api.get("/limited")
@rate_limited("2/hour")
async def limited() -> Any:
    """Two for each address."""
    return {"ok": True}


@api.get("/called")
@rate_limited("1/hour", by="caller", name="calls")
def called() -> Any:
    """One for each calling service, in a plain view."""
    return {"ok": True}


@api.get("/locked")
async def locked() -> Any:
    """Under a lock."""
    async with mesh_lock("things", ttl=5, wait=1) as held:
        return {"token": held.token}


@pytest.fixture
async def app(redis_url: str, namespace: str) -> AsyncIterator[ServiceApp]:
    config = app_settings.load()
    made = create_app(Service("things", blueprints=(api,)), config)
    async with open_line(redis_url, timeout_seconds=2.0) as line:
        made.extensions[EXTENSION] = SimpleNamespace(coordination=Coordination(line, Keys(namespace)), settings=config)
        yield made


async def ask(app: ServiceApp, path: str, *, client: str = "127.0.0.1") -> tuple[int, dict[bytes, bytes]]:
    exchange = await Exchange(path=path, raw_path=path.encode(), client=(client, 1)).run(app.asgi_app)
    return exchange.status, dict(exchange.headers)


async def test_each_address_has_its_own_limit_and_is_told_how_it_stands(app: ServiceApp) -> None:
    answers = [await ask(app, "/things/limited") for _ in range(3)]
    assert [status for status, _ in answers] == [200, 200, 429]
    assert [headers[b"ratelimit-remaining"] for _, headers in answers] == [b"1", b"0", b"0"]
    assert {headers[b"ratelimit-limit"] for _, headers in answers} == {b"2"}
    assert 0 < int(answers[-1][1][b"retry-after"]) <= 1800
    assert 0 < int(answers[-1][1][b"ratelimit-reset"]) <= 3600
    assert (await ask(app, "/things/limited", client="127.0.0.2"))[0] == 200


async def test_services_that_call_are_told_apart(app: ServiceApp) -> None:
    statuses = []
    for caller in ("orders", "users", "orders"):
        with activate(Context("r1", caller=caller)):
            statuses.append((await ask(app, "/things/called"))[0])
    assert statuses == [200, 200, 429]


async def test_a_view_holds_a_lock_of_the_fleet(app: ServiceApp) -> None:
    assert [(await ask(app, "/things/locked"))[0] for _ in range(2)] == [200, 200]
