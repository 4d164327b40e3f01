"""The routes of orders: parse, call the logic, serialise."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

from app.auth import owner, requires
from app.data import pagination
from app.data.fields import MAX_ID
from app.errors import Forbidden
from app.services.orders import logic, waiting
from app.services.orders.logic import Draft, Line, Order, Policy, State
from app.services.orders.peers import MeshUsers
from app.services.orders.repository import OrderRepository
from app.services.orders.schemas import NewOrder, OrderOut, OrderPage, OrderPath, OrderQuery
from app.web import (
    API,
    current_key,
    database,
    demand,
    expected,
    idempotent,
    may,
    mesh,
    patient,
    preferred_wait,
    principal,
    resources,
    tagged,
    versioned,
)

api = API("orders", __name__, prefix="/orders", tag="orders")

_orders = OrderRepository(database)
_users = MeshUsers(mesh)

# A subject that is a user's id, in the one way in which a number is written.
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")

Shown = tuple[OrderOut, int, dict[str, str]]

_ADMIN = requires("orders:admin")
_MAY_ORDER = requires("orders:write") & owner(of="user_id") | _ADMIN


async def _owner_of(order_id: int) -> int | None:
    # Asked before the path is looked at as a whole: no database has a number beyond.
    return await _orders.owner(order_id) if order_id <= MAX_ID else None


_MAY_READ = requires("orders:read") & owner(of=_owner_of) | _ADMIN
_MAY_CANCEL = requires("orders:write") & owner(of=_owner_of) | _ADMIN


@api.get("", responses={200: OrderPage})
@(requires("orders:read") | _ADMIN)
async def browse(query: OrderQuery) -> tuple[OrderPage, int, dict[str, str]]:
    """List orders, by id: one's own; administrators those of one user or of all."""
    user_id = query.user_id if may(_ADMIN) else _oneself(query.user_id)
    page = await _orders.page(limit=query.limit, cursor=query.cursor, user_id=user_id)
    links = pagination.links("/orders", page, limit=query.limit, user_id=query.user_id)
    return OrderPage.model_validate(page), 200, links


@api.post("", responses={202: OrderOut, 201: OrderOut})
@(requires("orders:write") | _ADMIN)
@idempotent
@versioned
@patient
async def place(body: NewOrder) -> Shown:
    """Place an order for oneself: its user must exist. All of its items will be reserved, or none.

    Whether they are is known a little later, so it is accepted (202), and pending. Who sends ``Prefer: wait=2`` waits up to
    two seconds for it: 201 says that the order is confirmed, an error that it is rejected.
    """
    demand(_MAY_ORDER, user_id=body.user_id)
    lines = tuple(Line(line.sku, line.quantity) for line in body.items)
    draft = Draft(body.user_id, lines, uuid.uuid4().hex, datetime.now(UTC), request_key=current_key())
    policy = Policy(timedelta(seconds=resources.settings.orders.timeout_seconds))
    return await _outcome(await logic.place(draft, policy, _users, _orders))


async def _outcome(order: Order) -> Shown:
    """What to answer to who has just placed `order`. Raises: what the logic says of a rejection."""
    wait, headers = preferred_wait(), {"Location": f"/orders/{order.id}"}
    if wait is not None:
        headers |= wait.headers
        order = await waiting.until_settled(order, _orders, seconds=wait.longest_seconds)
    if refusal := logic.refusal(order):
        raise refusal
    status = 202 if order.state is State.PENDING else 201
    return tagged(OrderOut.model_validate(order), order.version, status=status, headers=headers)


@api.get("/<int:order_id>", responses={200: OrderOut})
@_MAY_READ
@versioned
async def read(path: OrderPath) -> Shown:
    """Read one order."""
    order = await logic.read(path.order_id, _orders)
    return tagged(OrderOut.model_validate(order), order.version)


@api.post("/<int:order_id>/cancel", responses={200: OrderOut})
@_MAY_CANCEL
@idempotent
@versioned
async def cancel(path: OrderPath) -> Shown:
    """Cancel an order; its stock is given back soon after. Repeating it changes nothing."""
    order = await logic.cancel(path.order_id, _orders, expected=expected())
    return tagged(OrderOut.model_validate(order), order.version)


@api.delete("/<int:order_id>", responses={204: None})
@_MAY_CANCEL
@versioned
async def remove(path: OrderPath) -> tuple[str, int]:
    """Cancel an order, without an answer; it stays readable."""
    await logic.cancel(path.order_id, _orders, expected=expected())
    return "", 204


def _oneself(asked: int | None) -> int:
    """The user who asks, and may ask for nobody else's. Raises: Forbidden."""
    asking = principal()
    own = int(asking.subject) if asking is not None and _NUMBER.fullmatch(asking.subject) else None
    if asking is None or not asking.owns(own) or own is None or asked not in (None, own):
        raise Forbidden("One may list one's own orders", scopes=_ADMIN.scopes)
    return own
