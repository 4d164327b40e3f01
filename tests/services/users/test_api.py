from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from app.services.users.models import requests
from tests.services.conftest import Running, Start

ADA = {"name": "Ada", "email": "ada@example.com"}


@pytest.fixture
async def users(start: Start) -> Running:
    return await start("users")


async def test_the_example_of_every_tutorial(users: Running) -> None:
    answer = await users.client.get("/users/7")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["id", "name", "email", "created_at"]
    assert answer.text.startswith('{"id":7,"name":"User7","email":"user7@example.com"')
    assert answer.json()["created_at"] == "2026-01-01T00:00:00Z"


async def test_a_user_lives_from_creation_to_removal(users: Running) -> None:
    created = await users.client.post("/users", json=ADA)
    assert created.status_code == 201
    path = created.headers["location"]
    assert await users.get(path) == created.json()
    assert created.json()["name"] == "Ada"

    replaced = await users.ask("PUT", path, 200, json={"name": "Countess", "email": "c@example.com"})
    assert replaced == {**created.json(), "name": "Countess", "email": "c@example.com"}
    changed = await users.ask("PATCH", path, 200, json={"name": "Lovelace"})
    assert changed == {**replaced, "name": "Lovelace"}
    assert await users.ask("PATCH", path, 200, json={}) == changed

    assert await users.ask("DELETE", path, 204) is None
    for method in ("GET", "DELETE", "PUT", "PATCH"):
        body = {"json": ADA} if method.startswith("P") else {}
        assert (await users.ask(method, path, 404, **body))["code"] == "not_found"


async def test_pages_lead_through_all_users(users: Running) -> None:
    seen: list[int] = []
    url: str | None = "/users?limit=30"
    while url is not None:
        answer = await users.client.get(url)
        page = answer.json()
        seen += [user["id"] for user in page["items"]]
        link = answer.links.get("next")
        assert (page["next"] is None) == (link is None)
        url = str(link["url"]) if link else None
    assert seen == list(range(1, 101))


async def test_a_page_holds_twenty_unless_asked(users: Running) -> None:
    page = await users.get("/users")
    assert len(page["items"]) == 20
    rest = await users.get("/users", params={"cursor": page["next"], "limit": 100})
    assert len(rest["items"]) == 80
    assert rest["next"] is None


async def test_an_email_address_belongs_to_one_user(users: Running) -> None:
    await users.ask("POST", "/users", 201, json=ADA)
    for email in ("ada@example.com", "ADA@Example.com"):
        problem = await users.ask("POST", "/users", 409, json={"name": "Another", "email": email})
        assert problem["code"] == "email_taken"
    await users.ask("PUT", "/users/7", 409, json=ADA)
    await users.ask("PATCH", "/users/7", 409, json={"email": "ada@example.com"})
    assert (await users.get("/users/7"))["name"] == "User7"


BAD_BODIES: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "body.name"),
    "null": ({**ADA, "name": None}, "body.name"),
    "a number": ({**ADA, "name": 7}, "body.name"),
    "empty": ({**ADA, "name": "  "}, "body.name"),
    "too long": ({**ADA, "name": "x" * 101}, "body.name"),
    "NUL": ({**ADA, "name": "A\0da"}, "body.name"),
    "NUL in the address": ({**ADA, "email": "a\0@example.com"}, "body.email"),
    "no address": ({**ADA, "email": "ada"}, "body.email"),
    "two lines": ({**ADA, "email": "ada@example.com\n"}, "body.email"),
    "a long address": ({**ADA, "email": "a@" + "b." * 200 + "com"}, "body.email"),
    "unknown field": ({**ADA, "admin": True}, "body.admin"),
    "own id": ({**ADA, "id": 7}, "body.id"),
}


@pytest.mark.parametrize(("method", "url"), [("POST", "/users"), ("PUT", "/users/7"), ("PATCH", "/users/7")])
async def test_a_bad_body_is_refused_by_its_field(
    users: Running, subtests: pytest.Subtests, method: str, url: str
) -> None:
    for name, (body, path) in BAD_BODIES.items():
        if method == "PATCH" and not body:
            continue
        with subtests.test(name):
            problem = await users.ask(method, url, 422, json=body)
            assert path in [error["path"] for error in problem["errors"]]
            assert (await users.get("/users/7"))["name"] == "User7"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'"text"', b"[]", b"7", b"null", b'{"name": "\\ud800"}'])
async def test_what_is_no_object_is_refused(users: Running, content: bytes) -> None:
    answer = await users.client.post("/users", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("0", 422),
        ("-1", 404),
        (str(2**63), 422),
        ("9" * 5000, 404),
        (str(2**63 - 1), 404),
        ("seven", 404),
        ("7%00", 404),
    ],
)
async def test_ids_that_no_user_can_have(users: Running, path: str, status: int) -> None:
    await users.ask("GET", f"/users/{path}", status)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "query.limit"),
        ("limit=101", "query.limit"),
        ("limit=-1", "query.limit"),
        ("limit=many", "query.limit"),
        ("cursor=%00", "query.cursor"),
        ("cursor=", "query.cursor"),
        ("cursor=c3RlYQ", "query.cursor"),
        ("cursor=" + "x" * 600, "query.cursor"),
    ],
)
async def test_a_bad_query_is_refused_by_its_parameter(users: Running, query: str, path: str) -> None:
    problem = await users.ask("GET", f"/users?{query}", 422)
    assert [error["path"] for error in problem["errors"]] == [path]


async def test_the_document_says_what_may_be_left_out(users: Running) -> None:
    document = await users.get("/openapi.json")
    schemas = document["components"]["schemas"]
    assert schemas["UserIn"]["required"] == ["name", "email"]
    assert "required" not in schemas["UserChanges"]
    assert "default" not in json.dumps(schemas["UserChanges"])


async def test_a_user_that_has_changed_since_is_not_changed_over(users: Running) -> None:
    created = await users.client.post("/users", json=ADA)
    path, first = created.headers["location"], created.headers["etag"]
    assert first == '"1"'
    renamed = await users.client.patch(path, json={"name": "Countess"}, headers={"If-Match": first})
    assert (renamed.status_code, renamed.headers["etag"]) == (200, '"2"')
    for method, body in (("PATCH", {"name": "Eve"}), ("PUT", ADA), ("PATCH", {}), ("DELETE", None)):
        for condition in (first, f"W/{renamed.headers['etag']}", '"2-profile"'):
            problem = await users.ask(method, path, 412, json=body, headers={"If-Match": condition})
            assert problem["code"] == "precondition_failed"
    assert await users.get(path) == renamed.json()
    await users.ask("PUT", path, 400, json=ADA, headers={"If-Match": "2"})
    replaced = await users.client.put(path, json=ADA, headers={"If-Match": '"1", "2"'})
    assert (replaced.status_code, replaced.headers["etag"]) == (200, '"3"')
    await users.ask("PATCH", path, 200, json={}, headers={"If-Match": "*"})
    await users.ask("DELETE", path, 204, headers={"If-Match": '"3"'})
    for condition in ('"3"', "*"):
        await users.ask("PUT", path, 404, json=ADA, headers={"If-Match": condition})


async def test_a_user_that_is_known_already_is_not_sent_again(users: Running) -> None:
    whole = await users.client.get("/users/7")
    async with users.as_(None) as stranger:
        profile = await stranger.client.get("/users/7")
        assert (whole.headers["etag"], profile.headers["etag"]) == ('"1"', '"1-profile"')
        for asking, own, other in ((users, whole, profile), (stranger, profile, whole)):
            known = await asking.client.get("/users/7", headers={"If-None-Match": own.headers["etag"]})
            assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", own.headers["etag"])
            news = await asking.client.get("/users/7", headers={"If-None-Match": other.headers["etag"]})
            assert (news.status_code, news.json()) == (200, own.json())
            for answer in (own, known, news):
                assert answer.headers["vary"] == "Authorization"
                assert len(answer.headers.get_list("date")) == 1
    await users.ask("PATCH", "/users/7", 200, json={"name": "User7"})
    assert (await users.client.get("/users/7", headers={"If-None-Match": '"1"'})).status_code == 200


async def test_a_user_whose_creation_was_never_answered_is_found_again(users: Running) -> None:
    key = {"Idempotency-Key": "k"}
    first = await users.client.post("/users", json=ADA, headers=key)
    # As a process leaves it that is killed between the effect and its reply, once its lease has run out.
    async with users.database.session() as session:
        await session.execute(update(requests).values(status=None, leased_until=datetime.now(UTC)))
    again = await users.client.post("/users", json=ADA, headers=key)
    assert (again.status_code, again.content, again.headers["etag"]) == (201, first.content, first.headers["etag"])
    assert "idempotency-replayed" not in again.headers


async def test_a_user_who_is_created_twice_by_mistake_is_created_once(users: Running) -> None:
    key = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    first, again = [await users.client.post("/users", json=ADA, headers=key) for _ in range(2)]
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert (again.headers["location"], again.headers["etag"]) == (first.headers["location"], '"1"')
    assert again.headers["idempotency-replayed"] == "true"
    assert (await users.ask("POST", "/users", 422, json={**ADA, "name": "Eve"}, headers=key))["code"] == (
        "idempotency_key_reused"
    )
