"""An order reaches its end whatever stops between two of its steps: a service, a process, Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Unavailable
from app.events.handling.group import Group
from tests.faults import redis
from tests.faults.redis import Redis
from tests.services.conftest import Running, Start, until
from tests.services.orders.shop import TEA, Shop

HURRY = {"orders": {"timeout_seconds": 0.2}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis that this test may break."""
    with redis.running(tmp_path / "redis") as server:
        yield server


async def reservations(inventory: Running, order: Any) -> str:
    """The state of what is reserved for the only order there is."""
    table = inventory.process.service.models
    assert table is not None
    async with inventory.database.reading() as session:
        rows = (await session.execute(table.tables["inventory_reservations"].select())).all()
    return " ".join(row.state for row in rows)


async def released(inventory: Running) -> None:
    """Wait until nothing is held for the only order there is, nor will be."""

    async def condition() -> bool:
        return await reservations(inventory, None) == "released"

    await until(condition)


# ------------------------------------------------------------------------------------------------- a service is away


async def test_while_the_inventory_is_away_an_order_is_accepted_and_it_is_confirmed_later(start: Start) -> None:
    shop = Shop(await start("users"), await start("inventory"), await start("orders"))
    await shop.inventory.stop()
    first, second = await shop.order(), await shop.order(202, wait=1)
    assert (first["state"], second["state"]) == ("pending", "pending")
    shop.inventory = await start("inventory")
    assert [(await shop.settled(order["id"]))["state"] for order in (first, second)] == ["confirmed"] * 2
    assert await shop.available() == 9_996


async def test_an_order_that_takes_too_long_is_given_up_and_what_is_reserved_for_it_later_is_released(
    start: Start,
) -> None:
    shop = Shop(await start("users"), await start("inventory"), await start("orders", **HURRY))
    await shop.inventory.stop()
    answer = await shop.orders.client.post(
        "/orders", json={"user_id": 7, "items": [TEA]}, headers={"Prefer": "wait=20"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert await shop.states() == ["rejected"]
    shop.inventory = await start("inventory")
    await released(shop.inventory)
    assert await shop.available() == 10_000
    found = await shop.orders.get("/orders/1")
    assert (found["state"], found["rejection"]["code"]) == ("rejected", "timeout")


async def test_a_pending_order_is_cancelled_at_once_and_what_is_reserved_for_it_later_is_released(
    start: Start,
) -> None:
    shop = Shop(await start("users"), await start("inventory"), await start("orders"))
    await shop.inventory.stop()
    order = await shop.order()
    assert (await shop.orders.ask("POST", f"/orders/{order['id']}/cancel", 200))["state"] == "cancelled"
    shop.inventory = await start("inventory")
    await released(shop.inventory)
    assert await shop.available() == 10_000
    assert await shop.states() == ["cancelled"]


# ------------------------------------------------------------------------------------------- a process ends in between


@pytest.mark.parametrize("service", ["orders", "inventory"])
async def test_a_process_that_ends_after_its_commit_and_before_its_ack_is_followed_by_one_that_changes_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    deaf, acknowledged = True, list[str]()
    real = Group.ack

    async def ack(group: Group, stream: str, entries: Any) -> None:
        if deaf and group.name == service:
            raise Unavailable("The line is cut")
        acknowledged.append(group.name)
        await real(group, stream, entries)

    monkeypatch.setattr(Group, "ack", ack)
    shop = Shop(await start("users"), await start("inventory"), await start("orders"))
    order = await shop.confirmed()
    await getattr(shop, service).stop()
    deaf = False
    acknowledged.clear()
    setattr(shop, service, await start(service))
    await until(lambda: service in acknowledged)
    assert await shop.confirmed() is not None
    assert await shop.available() == 9_996
    assert await shop.orders.get(f"/orders/{order['id']}") == order


async def test_an_order_whose_process_ends_before_it_is_told_of_is_told_of_by_the_next(
    start: Start, server: Redis
) -> None:
    shop = Shop(*[await start(name, redis_url=server.url) for name in ("users", "inventory", "orders")])
    await shop.confirmed()
    server.kill()
    order = await shop.order()
    await shop.orders.stop()
    server.start()
    shop.orders = await start("orders", redis_url=server.url)
    assert (await shop.settled(order["id"]))["state"] == "confirmed"
    assert await shop.available() == 9_996


# ---------------------------------------------------------------------------------------------------- Redis is away


async def test_while_redis_is_away_an_order_is_accepted_and_it_is_confirmed_when_it_is_back(
    start: Start, server: Redis
) -> None:
    shop = Shop(*[await start(name, redis_url=server.url) for name in ("users", "inventory", "orders")])
    before = await shop.confirmed()
    server.kill()
    order = await shop.order(202, wait=1)
    assert order["state"] == "pending"
    await shop.orders.ask("DELETE", f"/orders/{before['id']}", 204)
    server.start()
    assert (await shop.settled(order["id"]))["state"] == "confirmed"
    await shop.until_available(9_998)


async def test_a_redis_that_forgets_everything_has_no_order_confirmed_twice(start: Start, server: Redis) -> None:
    shop = Shop(*[await start(name, redis_url=server.url) for name in ("users", "inventory", "orders")])
    for _ in range(3):
        await shop.confirmed()
    server.flush()
    await shop.confirmed()
    assert (await shop.states(), await shop.available()) == (["confirmed"] * 4, 9_992)
