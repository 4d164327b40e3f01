"""Orders over HTTP, with users and inventory as they really are."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from app.services.orders.models import requests
from tests.services.conftest import Start
from tests.services.orders.shop import TEA, Shop


@pytest.fixture
async def shop(start: Start) -> Shop:
    return Shop(await start("users"), await start("inventory"), await start("orders"))


async def test_an_order_is_accepted_then_confirmed_read_and_cancelled(shop: Shop) -> None:
    body = {"user_id": 7, "items": [TEA, {"sku": "mug-stoneware", "quantity": 1}]}
    placed = await shop.orders.client.post("/orders", json=body)
    assert placed.status_code == 202, placed.text
    order, path = placed.json(), placed.headers["location"]
    assert path == f"/orders/{order['id']}"
    assert "preference-applied" not in placed.headers
    assert list(order) == ["id", "user_id", "state", "items", "created_at", "rejection"]
    assert (order["user_id"], order["state"], order["items"], order["rejection"]) == (7, "pending", body["items"], None)

    assert await shop.settled(order["id"]) == {**order, "state": "confirmed"}
    assert await shop.available() == 9_998

    for _ in range(2):
        assert await shop.orders.ask("POST", f"{path}/cancel", 200) == {**order, "state": "cancelled"}
    await shop.orders.ask("DELETE", path, 204)
    await shop.until_available(10_000)
    assert (await shop.orders.get(path))["state"] == "cancelled"


async def test_who_prefers_to_wait_hears_of_the_confirmation(shop: Shop) -> None:
    placed = await shop.orders.client.post(
        "/orders", json={"user_id": 7, "items": [TEA]}, headers={"Prefer": "respond-async, wait=20"}
    )
    assert (placed.status_code, placed.json()["state"]) == (201, "confirmed")
    assert placed.headers["preference-applied"] == "wait=20"
    assert await shop.orders.get(placed.headers["location"]) == placed.json()


async def test_an_order_can_be_cancelled_by_delete(shop: Shop) -> None:
    order = await shop.confirmed()
    await shop.orders.ask("DELETE", f"/orders/{order['id']}", 204)
    assert (await shop.orders.get(f"/orders/{order['id']}"))["state"] == "cancelled"
    await shop.until_available(10_000)


async def test_an_unknown_user_is_named_and_nothing_is_written(shop: Shop) -> None:
    for user_id in (101, 2**63 - 1):
        problem = await shop.order(422, user_id=user_id)
        assert [error["path"] for error in problem["errors"]] == ["body.user_id"]
    assert await shop.states() == []


async def test_an_unknown_item_is_named_by_its_place(shop: Shop) -> None:
    problem = await shop.order(422, wait=20, items=[TEA, {"sku": "no-such-tea", "quantity": 1}])
    assert problem["code"] == "invalid_input"
    assert [error["path"] for error in problem["errors"]] == ["body.items.1.sku"]
    assert (await shop.states(), await shop.available()) == (["rejected"], 10_000)


async def test_what_is_out_of_stock_is_a_conflict(shop: Shop) -> None:
    problem = await shop.order(409, wait=20, items=[TEA, {"sku": "tea-gyokuro", "quantity": 1}])
    assert (problem["code"], problem["skus"]) == ("out_of_stock", ["tea-gyokuro"])
    assert problem["shortages"] == [{"sku": "tea-gyokuro", "requested": 1, "available": 0}]
    assert (await shop.states(), await shop.available()) == (["rejected"], 10_000)


async def test_who_does_not_wait_finds_the_reason_with_the_order(shop: Shop) -> None:
    order = await shop.order(items=[TEA, {"sku": "tea-gyokuro", "quantity": 1}])
    found = await shop.settled(order["id"])
    assert found["state"] == "rejected"
    assert found["rejection"] == {
        "code": "out_of_stock",
        "detail": "Out of stock: tea-gyokuro",
        "skus": ["tea-gyokuro"],
        "shortages": [{"sku": "tea-gyokuro", "requested": 1, "available": 0}],
    }
    assert (await shop.orders.get("/orders"))["items"] == [found]


@pytest.mark.parametrize("known", [True, False], ids=["known to be away", "not known yet"])
async def test_without_users_orders_are_unavailable_for_now(shop: Shop, known: bool) -> None:
    await shop.users.stop()
    if known:
        await shop.until_gone("users")
    answer = await shop.orders.client.post("/orders", json={"user_id": 7, "items": [TEA]})
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert await shop.states() == []


async def test_of_many_orders_for_the_last_kettles_none_is_sold_twice(shop: Shop) -> None:
    await shop.inventory.ask("PATCH", "/inventory/kettle-cast-iron", 200, json={"available": 5})
    body = {"user_id": 7, "items": [{"sku": "kettle-cast-iron", "quantity": 1}]}
    wait = {"Prefer": "wait=20"}
    answers = await asyncio.gather(*(shop.orders.client.post("/orders", json=body, headers=wait) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 15
    assert await shop.available("kettle-cast-iron") == 0
    assert sorted(await shop.states()) == ["confirmed"] * 5 + ["rejected"] * 15


async def test_an_order_that_is_placed_twenty_times_by_mistake_is_placed_once(shop: Shop) -> None:
    body, key = {"user_id": 7, "items": [TEA]}, {"Idempotency-Key": "k"}
    wishes = [shop.orders.client.post("/orders", json=body, headers=key) for _ in range(20)]
    answers = await asyncio.gather(*wishes)
    assert {answer.status_code for answer in answers} <= {202, 409}
    again = await shop.orders.client.post("/orders", json=body, headers=key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert {answer.content for answer in answers if answer.status_code == 202} == {again.content}
    assert (await shop.settled(again.json()["id"]))["state"] == "confirmed"
    assert (await shop.states(), await shop.available()) == (["confirmed"], 9_998)


async def test_an_order_whose_process_died_before_it_could_say_so_is_found_again(shop: Shop) -> None:
    body, headers = {"user_id": 7, "items": [TEA]}, {"Idempotency-Key": "k", "Prefer": "wait=20"}
    first = await shop.orders.client.post("/orders", json=body, headers=headers)
    # As a process leaves it that is killed between the order and its reply, once its lease has run out.
    async with shop.orders.database.session() as session:
        await session.execute(update(requests).values(status=None, leased_until=datetime.now(UTC)))
    again = await shop.orders.client.post("/orders", json=body, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["etag"] == first.headers["etag"]
    assert "idempotency-replayed" not in again.headers
    assert (await shop.states(), await shop.available()) == (["confirmed"], 9_998)


async def test_an_order_that_has_changed_since_is_not_cancelled(shop: Shop) -> None:
    accepted = await shop.orders.client.post("/orders", json={"user_id": 7, "items": [TEA]})
    path, before = accepted.headers["location"], accepted.headers["etag"]
    await shop.settled(accepted.json()["id"])
    seen = (await shop.orders.client.get(path)).headers["etag"]
    assert (await shop.orders.client.get(path, headers={"If-None-Match": seen})).status_code == 304
    for method, suffix in (("POST", "/cancel"), ("DELETE", "")):
        for condition in (before, f"W/{seen}"):
            problem = await shop.orders.ask(method, path + suffix, 412, headers={"If-Match": condition})
            assert problem["code"] == "precondition_failed"
    assert await shop.states() == ["confirmed"]
    headers = {"If-Match": seen, "Idempotency-Key": "c"}
    cancelled = await shop.orders.client.post(f"{path}/cancel", headers=headers)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.headers["etag"] == (await shop.orders.client.get(path)).headers["etag"] != seen
    # It is not what it was; but who asks for the same once more hears the same.
    await shop.orders.ask("DELETE", path, 412, headers={"If-Match": seen})
    assert (await shop.orders.client.post(f"{path}/cancel", headers=headers)).content == cancelled.content


async def test_a_rejected_order_cannot_be_cancelled(shop: Shop) -> None:
    await shop.order(409, wait=20, items=[{"sku": "tea-gyokuro", "quantity": 1}])
    for method, path in (("POST", "/orders/1/cancel"), ("DELETE", "/orders/1")):
        await shop.orders.ask(method, path, 409)
    assert await shop.states() == ["rejected"]


async def test_orders_are_listed_by_user_and_page(shop: Shop) -> None:
    for user_id in (7, 8, 7, 7):
        await shop.order(user_id=user_id)
    answer = await shop.orders.client.get("/orders", params={"user_id": 7, "limit": 2})
    assert [order["user_id"] for order in answer.json()["items"]] == [7, 7]
    link = str(answer.links["next"]["url"])
    assert "user_id=7" in link
    rest = await shop.orders.get(link)
    assert (len(rest["items"]), rest["next"]) == (1, None)
    assert len((await shop.orders.get("/orders"))["items"]) == 4


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_order_that_does_not_exist_is_not_found(shop: Shop, method: str) -> None:
    await shop.orders.ask(method, "/orders/99", 404)
    await shop.orders.ask("POST", "/orders/99/cancel", 404)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text for an id": ({"user_id": "7"}, "body.user_id"),
    "no id": ({"user_id": 0}, "body.user_id"),
    "beyond 64 bits": ({"user_id": 2**63}, "body.user_id"),
    "nothing": ({"items": []}, "body.items"),
    "text for a number": ({"items": [{**TEA, "quantity": "2"}]}, "body.items.0.quantity"),
    "too many": ({"items": [{**TEA, "quantity": 1001}]}, "body.items.0.quantity"),
    "twice": ({"items": [TEA, TEA]}, "body.items.1.sku"),
    "NUL": ({"items": [{**TEA, "sku": "tea\0"}]}, "body.items.0.sku"),
    "unknown field": ({"state": "confirmed"}, "body.state"),
}


async def test_a_bad_order_is_refused_by_its_field_and_leaves_nothing(shop: Shop) -> None:
    for changes, path in BAD.values():
        problem = await shop.order(422, **changes)
        assert [error["path"] for error in problem["errors"]] == [path]
    assert await shop.states() == []


async def test_a_bad_query_is_refused_by_its_parameter(shop: Shop) -> None:
    for query, path in {"user_id=0": "query.user_id", "user_id=x": "query.user_id", "cursor=x": "query.cursor"}.items():
        problem = await shop.orders.ask("GET", f"/orders?{query}", 422)
        assert [error["path"] for error in problem["errors"]] == [path]


async def test_the_document_says_how_to_wait_for_an_outcome(shop: Shop) -> None:
    placing = (await shop.orders.get("/openapi.json"))["paths"]["/orders"]["post"]
    assert {"Prefer", "Idempotency-Key"} <= {parameter["name"] for parameter in placing["parameters"]}
    for status in ("201", "202"):
        assert {"ETag", "Preference-Applied"} <= set(placing["responses"][status]["headers"])
