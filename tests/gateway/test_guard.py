from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from app import settings
from app.auth.assembly import Auth, open_auth
from app.errors import Misconfigured
from app.gateway.guard import EdgeGuard
from tests.gateway.conftest import House
from tests.gateway.test_proxy import problem
from tests.tokens import TestIssuer, bearer

LOCKED = {"/orders": ("orders:read", "orders:write"), "/orders/archive": ("archive:read",)}


@pytest.fixture
def issuer(tmp_path: Path) -> TestIssuer:
    return TestIssuer(tmp_path)


@pytest.fixture
async def auth(issuer: TestIssuer) -> AsyncIterator[Auth]:
    async def nobody(method: str, path: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        raise AssertionError("the keys lie in a file")

    slice_ = settings.load(auth={"jwks_file": issuer.jwks_file}).auth
    async with open_auth(slice_, service="gateway", issuer="identity", send=nobody) as opened:
        yield opened


@pytest.fixture
def locked(house: House, auth: Auth) -> House:
    house.edge.guard = EdgeGuard(auth, LOCKED)
    return house


@pytest.mark.parametrize("path", ["/orders", "/orders/7", "/orders/%37", "/%6frders/7", "/orders/archive"])
async def test_nobody_gets_below_a_locked_prefix_without_a_token(locked: House, path: str) -> None:
    orders = await locked.serve("orders", "/orders")
    async with locked.client.get(locked.url + path) as response:
        assert (response.status, response.headers["www-authenticate"]) == (401, 'Bearer realm="mesh"')
        assert (await problem(response))["code"] == "unauthorized"
    assert orders.seen == []


async def test_one_of_the_scopes_of_the_longest_prefix_lets_a_token_in(locked: House, issuer: TestIssuer) -> None:
    orders = await locked.serve("orders", "/orders")
    asked = {
        ("/orders/7", "orders:read"): 200,
        ("/orders/7", "orders:write openid"): 200,
        ("/orders/7", "archive:read"): 403,
        ("/orders/archive/1", "archive:read"): 200,
        ("/orders/archive/1", "orders:read"): 403,
    }
    for (path, scope), status in asked.items():
        headers = bearer(issuer.user(7, scope))
        async with locked.client.get(locked.url + path, headers=headers) as response:
            assert response.status == status, (path, scope)
            if status == 403:
                assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
    assert len(orders.seen) == 3


async def test_a_token_that_is_not_believed_ends_at_the_edge(locked: House, issuer: TestIssuer) -> None:
    orders = await locked.serve("orders", "/orders")
    good = issuer.user(7, "orders:read")
    for headers in (bearer(good[:-2] + "AA"), bearer(issuer.user(7, exp=1)), {"Authorization": f"Basic {good}"}):
        async with locked.client.get(f"{locked.url}/orders/7", headers=headers) as response:
            assert response.status == 401
            assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert orders.seen == []


async def test_two_authorization_headers_are_none(locked: House, issuer: TestIssuer) -> None:
    await locked.serve("orders", "/orders")
    token = issuer.user(7, "orders:read").encode()
    line = b"Authorization: Bearer " + token + b"\r\n"
    answer = await locked.raw(b"GET /orders/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + line + line + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_what_is_not_locked_goes_in_as_it_comes(locked: House) -> None:
    users = await locked.serve("users", "/users", "/ordersx")
    for path in ("/users/7", "/ordersx"):
        async with locked.client.get(locked.url + path, headers=bearer("nonsense")) as response:
            assert response.status == 200
    assert [seen.values("authorization") for seen in users.seen] == [["Bearer nonsense"], ["Bearer nonsense"]]


@pytest.mark.parametrize("edge", [{"orders": ["a"]}, {"/orders/": ["a"]}, {"/orders": []}, {"/orders": [""]}])
def test_an_edge_that_makes_no_sense_is_refused(edge: dict[str, list[str]]) -> None:
    with pytest.raises(Misconfigured, match="edge"):
        settings.load(auth={"edge": edge})
