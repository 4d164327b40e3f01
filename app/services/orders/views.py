"""The routes of orders: parse, call the logic, serialise."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from app.data import pagination
from app.services.orders import logic
from app.services.orders.logic import Draft, Line
from app.services.orders.peers import MeshInventory, MeshUsers
from app.services.orders.recovery import Policy, Recovery
from app.services.orders.repository import OrderRepository
from app.services.orders.schemas import NewOrder, OrderOut, OrderPage, OrderPath, OrderQuery
from app.web import API, database, mesh

api = API("orders", __name__, prefix="/orders", tag="orders")

_orders = OrderRepository(database)
_users = MeshUsers(mesh)
_inventory = MeshInventory(mesh)
_recovery = Recovery(Policy())


@api.get("", responses={200: OrderPage})
async def browse(query: OrderQuery) -> tuple[OrderPage, int, dict[str, str]]:
    """List orders, by id; of one user or of all."""
    page = await _orders.page(limit=query.limit, cursor=query.cursor, user_id=query.user_id)
    links = pagination.links("/orders", page, limit=query.limit, user_id=query.user_id)
    return OrderPage.model_validate(page), 200, links


@api.post("", responses={201: OrderOut})
async def place(body: NewOrder) -> tuple[OrderOut, int, dict[str, str]]:
    """Place an order: its user must exist, and all of its items are reserved, or none."""
    now = datetime.now(UTC)
    lines = tuple(Line(line.sku, line.quantity) for line in body.items)
    order = await logic.place(Draft(body.user_id, lines, uuid.uuid4().hex, now), _users, _orders, _inventory)
    await _recovery.run_if_due(_orders, _inventory, now=now)
    return OrderOut.model_validate(order), 201, {"Location": f"/orders/{order.id}"}


@api.get("/<int:order_id>", responses={200: OrderOut})
async def read(path: OrderPath) -> OrderOut:
    """Read one order."""
    return OrderOut.model_validate(await logic.read(path.order_id, _orders))


@api.post("/<int:order_id>/cancel", responses={200: OrderOut})
async def cancel(path: OrderPath) -> OrderOut:
    """Cancel an order and give its stock back. Repeating it changes nothing."""
    return OrderOut.model_validate(await logic.cancel(path.order_id, _orders, _inventory))


@api.delete("/<int:order_id>", responses={204: None})
async def remove(path: OrderPath) -> tuple[str, int]:
    """Cancel an order, without an answer; it stays readable."""
    await logic.cancel(path.order_id, _orders, _inventory)
    return "", 204
