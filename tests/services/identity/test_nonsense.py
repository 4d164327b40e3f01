"""Whatever is sent, the answer is an OAuth error, never a failure of ours."""

from __future__ import annotations

from urllib.parse import urlencode

import httpx
import pytest

from tests.services.identity.parties import ACCESS_TOKEN, SECRETS, Identity, Json, exchanging, polling, redemption, wish

NONSENSE = [
    "",
    " ",
    "\0",
    "é" * 40,
    '"\\\r\n',
    "%",
    "x" * 5000,
    "a b",
    "7",
    "[]",
    "-1",
    "a.b.c",
    "eyJhbGciOiJub25lIn0.e30.",
]
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OWN = {"client_id": "orders", "client_secret": SECRETS["orders"]}
FORMS: dict[str, tuple[str, Json]] = {
    "code": ("/oauth/token", redemption("x", scope="openid", audience="mesh")),
    "refresh": ("/oauth/token", {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "demo-web"}),
    "own": ("/oauth/token", {"grant_type": "client_credentials", "scope": "users:read", "resource": "orders", **OWN}),
    "assertion": (
        "/oauth/token",
        {"grant_type": "client_credentials", "client_assertion_type": ASSERTION, "client_assertion": "x"},
    ),
    "device": ("/oauth/token", polling("x")),
    "exchange": ("/oauth/token", exchanging("x", requested_token_type=ACCESS_TOKEN, scope="users:read", **OWN)),
    "authorize a device": ("/oauth/device", {"client_id": "demo-device", "scope": "openid", "audience": "mesh"}),
    "introspect": ("/oauth/introspect", {"token": "x", "token_type_hint": "access_token", **OWN}),
    "revoke": ("/oauth/revoke", {"token": "x", "token_type_hint": "refresh_token", "client_id": "demo-web"}),
}


async def test_nonsense_in_a_form_is_refused(identity: Identity, subtests: pytest.Subtests) -> None:
    for name, (path, form) in FORMS.items():
        with subtests.test(name):
            await _try_nonsense(identity.running.client, path, form)


async def _try_nonsense(client: httpx.AsyncClient, path: str, form: Json) -> None:
    for parameter in form:
        for value in NONSENSE:
            answer = await client.post(path, data=form | {parameter: value})
            assert answer.status_code in (200, 400, 401), (parameter, value, answer.text)
            assert answer.headers["content-type"] == "application/json"
            assert answer.status_code == 200 or "error" in answer.json()
        without = {key: value for key, value in form.items() if key != parameter}
        assert (await client.post(path, data=without)).status_code in (200, 400, 401)
    for content in (b"\xff\xfe=\xff", b"%", b"&&==", b"grant_type", urlencode(form).encode() * 2):
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert (await client.post(path, content=content, headers=kind)).status_code in (400, 401)
    assert (await client.post(path, json=form)).status_code in (400, 401)


async def test_nonsense_in_an_authorization_request_is_refused(identity: Identity) -> None:
    for parameter in [*wish(), "prompt", "max_age", "audience", "resource", "response_mode", "request"]:
        for value in NONSENSE:
            query: Json = {parameter: value}
            answer = await identity.authorize(**query)
            assert answer.status_code in (302, 400), (parameter, value, answer.text)


async def test_nonsense_for_a_bearer_token_is_refused(identity: Identity) -> None:
    for value in (
        "x",
        "a.b.c",
        "x" * 5000,
        "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJub25lIiwia2lkIjoieCJ9.e30.",
        "é",
        "W10.e30.x",
        "bnVsbA.W10.x",
        "e30.W10.eA",
    ):
        header = {b"authorization": f"Bearer {value}".encode("latin-1")}
        answer = await identity.running.client.get("/oauth/userinfo", headers=header)
        assert answer.status_code == 401
