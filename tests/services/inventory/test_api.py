from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from app.services.inventory.models import requests
from tests.services.conftest import Running, Start

POT = {"sku": "teapot-clay", "name": "Clay teapot", "available": 3}


@pytest.fixture
async def inventory(start: Start) -> Running:
    return await start("inventory")


def wish(reference: str = "order-1", **quantities: int) -> dict[str, Any]:
    items = [{"sku": sku.replace("_", "-"), "quantity": quantity} for sku, quantity in quantities.items()]
    return {"order_ref": reference, "items": items}


async def available(inventory: Running, sku: str) -> int:
    return int((await inventory.get(f"/inventory/{sku}"))["available"])


async def test_the_demo_stock_is_a_dozen_and_one_is_gone(inventory: Running) -> None:
    page = await inventory.get("/inventory")
    assert len(page["items"]) == 12
    assert {"sku": "tea-earl-grey", "name": "Earl Grey tea, 100 g", "available": 10_000} in page["items"]
    assert [item["sku"] for item in page["items"] if item["available"] == 0] == ["tea-gyokuro"]


async def test_an_item_lives_from_creation_to_removal(inventory: Running) -> None:
    created = await inventory.client.post("/inventory", json=POT)
    assert (created.status_code, created.json()) == (201, POT)
    path = created.headers["location"]
    assert path == "/inventory/teapot-clay"
    assert await inventory.get(path) == POT
    new = {"name": "Pot", "available": 4}
    assert await inventory.ask("PUT", path, 200, json=new) == {**POT, **new}
    assert await inventory.ask("PATCH", path, 200, json={"available": 0}) == {**POT, "name": "Pot", "available": 0}
    assert (await inventory.ask("POST", "/inventory", 409, json=POT))["code"] == "sku_taken"
    assert await inventory.ask("DELETE", path, 204) is None
    await inventory.ask("DELETE", path, 404)
    await inventory.ask("GET", path, 404)
    await inventory.ask("PUT", path, 404, json=new)


async def test_pages_lead_through_all_items(inventory: Running) -> None:
    seen: list[str] = []
    url: str | None = "/inventory?limit=5"
    while url is not None:
        answer = await inventory.client.get(url)
        seen += [item["sku"] for item in answer.json()["items"]]
        link = answer.links.get("next")
        url = str(link["url"]) if link else None
    assert len(seen) == 12
    assert seen == sorted(seen)


async def test_a_reservation_is_made_repeated_read_and_released(inventory: Running) -> None:
    body = wish(tea_sencha=3, mug_stoneware=2)
    made = await inventory.client.post("/inventory/reservations", json=body)
    assert made.status_code == 201
    assert made.headers["location"] == "/inventory/reservations/order-1"
    again = await inventory.client.post("/inventory/reservations", json=body)
    assert (again.status_code, again.json()) == (200, made.json())
    assert await available(inventory, "tea-sencha") == 9_997

    read = await inventory.get("/inventory/reservations/order-1")
    assert read["state"] == "held"
    assert read["items"] == [{"sku": "mug-stoneware", "quantity": 2}, {"sku": "tea-sencha", "quantity": 3}]
    assert (await inventory.ask("DELETE", "/inventory/tea-sencha", 409))["code"] == "item_reserved"

    for _ in range(2):
        await inventory.ask("DELETE", "/inventory/reservations/order-1", 204)
    assert await available(inventory, "tea-sencha") == 10_000
    assert (await inventory.ask("POST", "/inventory/reservations", 409, json=body))["code"] == "reference_used"
    assert (await inventory.get("/inventory/reservations/order-1"))["state"] == "released"


async def test_what_is_out_of_stock_is_named(inventory: Running) -> None:
    body = wish(tea_sencha=3, tea_gyokuro=2, kettle_cast_iron=101)
    problem = await inventory.ask("POST", "/inventory/reservations", 409, json=body)
    assert problem["code"] == "out_of_stock"
    assert sorted(problem["skus"]) == ["kettle-cast-iron", "tea-gyokuro"]
    assert {"sku": "tea-gyokuro", "requested": 2, "available": 0} in problem["shortages"]
    assert await available(inventory, "tea-sencha") == 10_000
    await inventory.ask("GET", "/inventory/reservations/order-1", 404)


async def test_an_unknown_item_is_named_by_its_place(inventory: Running) -> None:
    problem = await inventory.ask("POST", "/inventory/reservations", 422, json=wish(tea_sencha=3, no_such_tea=2))
    assert [(error["path"], error["type"]) for error in problem["errors"]] == [("body.items.1.sku", "unknown_sku")]
    assert await available(inventory, "tea-sencha") == 10_000


TEA = {"sku": "tea-sencha", "quantity": 1}
BAD_ITEMS: dict[str, tuple[Any, str]] = {
    "nothing": ([], "body.items"),
    "too many": ([{"sku": f"tea-{n}", "quantity": 1} for n in range(101)], "body.items"),
    "no list": ("tea-sencha", "body.items"),
    "text for a number": ([{**TEA, "quantity": "2"}], "body.items.0.quantity"),
    "a fraction": ([{**TEA, "quantity": 1.5}], "body.items.0.quantity"),
    "yes": ([{**TEA, "quantity": True}], "body.items.0.quantity"),
    "none": ([{**TEA, "quantity": 0}], "body.items.0.quantity"),
    "negative": ([{**TEA, "quantity": -1}], "body.items.0.quantity"),
    "a thousand and one": ([{**TEA, "quantity": 1001}], "body.items.0.quantity"),
    "huge": ([{**TEA, "quantity": 10**30}], "body.items.0.quantity"),
    "NUL": ([{**TEA, "sku": "tea\0"}], "body.items.0.sku"),
    "upper case": ([{**TEA, "sku": "Tea"}], "body.items.0.sku"),
    "twice": ([TEA, {"sku": "tea-assam", "quantity": 1}, TEA], "body.items.2.sku"),
    "unknown field": ([{**TEA, "price": 1}], "body.items.0.price"),
}


async def test_bad_lines_are_refused_by_their_place(inventory: Running, subtests: pytest.Subtests) -> None:
    for name, (items, path) in BAD_ITEMS.items():
        with subtests.test(name):
            body = {"order_ref": "order-1", "items": items}
            problem = await inventory.ask("POST", "/inventory/reservations", 422, json=body)
            assert path in [error["path"] for error in problem["errors"]]
            assert await available(inventory, "tea-sencha") == 10_000


BAD_ITEM: dict[str, tuple[dict[str, Any], str]] = {
    "a reserved word": ({"sku": "reservations"}, "body.sku"),
    "a slash": ({"sku": "tea/assam"}, "body.sku"),
    "a long sku": ({"sku": "a" * 65}, "body.sku"),
    "less than none": ({"available": -1}, "body.available"),
    "too many": ({"available": 10**9 + 1}, "body.available"),
    "no number": ({"available": "3"}, "body.available"),
    "NUL": ({"name": "\0"}, "body.name"),
}


async def test_a_bad_item_is_refused_by_its_field(inventory: Running, subtests: pytest.Subtests) -> None:
    for name, (wrong, path) in BAD_ITEM.items():
        with subtests.test(name):
            problem = await inventory.ask("POST", "/inventory", 422, json={**POT, **wrong})
            assert [error["path"] for error in problem["errors"]] == [path]


@pytest.mark.parametrize("path", ["reservations", "Tea", "tea%00", "a" * 65])
async def test_a_path_that_is_no_sku_is_refused(inventory: Running, path: str) -> None:
    await inventory.ask("GET", f"/inventory/{path}", 422)


async def test_a_cursor_of_another_list_is_refused(inventory: Running) -> None:
    problem = await inventory.ask("GET", "/inventory?cursor=aTI", 422)
    assert problem["errors"][0]["path"] == "query.cursor"


async def test_an_item_that_has_changed_since_is_not_changed_over(inventory: Running) -> None:
    path = "/inventory/tea-sencha"
    seen = (await inventory.client.get(path)).headers["etag"]
    assert (await inventory.client.get(path, headers={"If-None-Match": seen})).status_code == 304
    await inventory.ask("POST", "/inventory/reservations", 201, json=wish(tea_sencha=3))
    assert (await inventory.client.get(path, headers={"If-None-Match": seen})).status_code == 200
    for method, body in (("PATCH", {"available": 5}), ("PUT", {"name": "Tea", "available": 5}), ("DELETE", None)):
        problem = await inventory.ask(method, path, 412, json=body, headers={"If-Match": seen})
        assert problem["code"] == "precondition_failed"
    assert await available(inventory, "tea-sencha") == 9_997


async def test_an_item_whose_creation_was_never_answered_is_found_again(inventory: Running) -> None:
    key = {"Idempotency-Key": "k"}
    first = await inventory.client.post("/inventory", json=POT, headers=key)
    # As a process leaves it that is killed between the effect and its reply, once its lease has run out.
    async with inventory.database.session() as session:
        await session.execute(update(requests).values(status=None, leased_until=datetime.now(UTC)))
    again = await inventory.client.post("/inventory", json=POT, headers=key)
    assert (again.status_code, again.content, again.headers["etag"]) == (201, first.content, first.headers["etag"])
    assert "idempotency-replayed" not in again.headers


async def test_an_item_that_is_created_twice_by_mistake_is_created_once(inventory: Running) -> None:
    made = [await inventory.client.post("/inventory", json=POT, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert (
        made[0].headers["etag"]
        == made[1].headers["etag"]
        == (await inventory.client.get("/inventory/teapot-clay")).headers["etag"]
    )
    assert "idempotency-replayed" in made[1].headers
