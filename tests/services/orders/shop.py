"""Three services, and somebody who orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.services.conftest import Running, until

TEA = {"sku": "tea-earl-grey", "quantity": 2}


@dataclass
class Shop:
    """An administrator's view of it."""

    users: Running
    inventory: Running
    orders: Running

    async def order(self, status: int = 202, *, wait: int | None = None, **changes: Any) -> Any:
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        body = {"user_id": 7, "items": [TEA], **changes}
        return await self.orders.ask("POST", "/orders", status, json=body, headers=headers)

    async def confirmed(self, **changes: Any) -> Any:
        return await self.order(201, wait=20, **changes)

    async def settled(self, order_id: int) -> Any:
        """The order, once it is no longer pending."""
        return await self.once(order_id, lambda order: order["state"] != "pending")

    async def once(self, order_id: int, holds: Callable[[Any], bool]) -> Any:
        async def condition() -> bool:
            return holds(await self.orders.get(f"/orders/{order_id}"))

        await until(condition)
        return await self.orders.get(f"/orders/{order_id}")

    async def states(self) -> list[str]:
        """Of all orders, as they were placed."""
        return [order["state"] for order in (await self.orders.get("/orders?limit=100"))["items"]]

    async def available(self, sku: str = "tea-earl-grey") -> int:
        return int((await self.inventory.get(f"/inventory/{sku}"))["available"])

    async def until_available(self, count: int) -> None:
        async def condition() -> bool:
            return await self.available() == count

        await until(condition)

    async def until_gone(self, service: str) -> None:
        """Wait until the orders service has heard that the last instance of `service` has left."""
        resources = self.orders.process.resources
        assert resources is not None
        instances: Callable[[], object] = lambda: not resources.mesh.directory.instances(service)  # noqa: E731
        await until(instances)
