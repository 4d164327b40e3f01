"""The routes of the inventory: parse, call the logic, serialise."""

from __future__ import annotations

from datetime import UTC, datetime

from app.auth import callers, public, requires
from app.data import pagination
from app.data.pagination import PageQuery
from app.services.inventory import logic
from app.services.inventory.logic import Line
from app.services.inventory.repository import ReservationRepository, StockRepository
from app.services.inventory.schemas import (
    ItemChanges,
    ItemIn,
    ItemOut,
    ItemPage,
    ItemPath,
    NewItem,
    NewReservation,
    ReservationOut,
    ReservationPath,
)
from app.web import API, current_key, database, expected, idempotent, tagged, versioned

api = API("inventory", __name__, prefix="/inventory", tag="inventory")

_stock = StockRepository(database)
_reservations = ReservationRepository(database)

_MAY_WRITE = requires("inventory:write")
# Stock is taken by orders alone; who mends something by hand needs the scope for it.
_MAY_RESERVE = callers("orders") | requires("inventory:reserve")

Shown = tuple[ItemOut, int, dict[str, str]]


@api.get("", responses={200: ItemPage})
@public
async def browse(query: PageQuery) -> tuple[ItemPage, int, dict[str, str]]:
    """List items, by sku."""
    page = await _stock.page(limit=query.limit, cursor=query.cursor)
    return ItemPage.model_validate(page), 200, pagination.links("/inventory", page, limit=query.limit)


@api.post("", responses={201: ItemOut})
@_MAY_WRITE
@idempotent
@versioned
async def create(body: NewItem) -> Shown:
    """Create an item."""
    new = logic.new_item(body.sku, body.name, body.available, datetime.now(UTC))
    item = await _stock.add(new, request_key=current_key())
    location = {"Location": f"/inventory/{item.sku}"}
    return tagged(ItemOut.model_validate(item), item.version, status=201, headers=location)


@api.get("/<sku>", responses={200: ItemOut})
@public
@versioned
async def read(path: ItemPath) -> Shown:
    """Read one item."""
    item = await logic.read(path.sku, _stock)
    return tagged(ItemOut.model_validate(item), item.version)


@api.put("/<sku>", responses={200: ItemOut})
@_MAY_WRITE
@versioned
async def replace(path: ItemPath, body: ItemIn) -> Shown:
    """Replace an item; the sku stays."""
    item = await logic.change(path.sku, body.model_dump(), _stock, expected=expected())
    return tagged(ItemOut.model_validate(item), item.version)


@api.patch("/<sku>", responses={200: ItemOut})
@_MAY_WRITE
@versioned
async def change(path: ItemPath, body: ItemChanges) -> Shown:
    """Change a part of an item."""
    item = await logic.change(path.sku, body.model_dump(exclude_unset=True), _stock, expected=expected())
    return tagged(ItemOut.model_validate(item), item.version)


@api.delete("/<sku>", responses={204: None})
@_MAY_WRITE
@versioned
async def remove(path: ItemPath) -> tuple[str, int]:
    """Remove an item that nobody has reserved."""
    await logic.remove(path.sku, _stock, expected=expected())
    return "", 204


@api.post("/reservations", responses={201: ReservationOut, 200: ReservationOut})
@_MAY_RESERVE
async def reserve(body: NewReservation) -> tuple[ReservationOut, int, dict[str, str]]:
    """Reserve several items: all or nothing. Repeating it with the same order_ref changes nothing (200)."""
    lines = [Line(line.sku, line.quantity) for line in body.items]
    reservation, new = await logic.reserve(body.order_ref, lines, _reservations, now=datetime.now(UTC))
    location = {"Location": f"/inventory/reservations/{reservation.order_ref}"}
    return ReservationOut.model_validate(reservation), 201 if new else 200, location


@api.get("/reservations/<order_ref>", responses={200: ReservationOut})
@_MAY_RESERVE
async def read_reservation(path: ReservationPath) -> ReservationOut:
    """Read one reservation."""
    return ReservationOut.model_validate(await logic.read_reservation(path.order_ref, _reservations))


@api.delete("/reservations/<order_ref>", responses={204: None})
@_MAY_RESERVE
async def release(path: ReservationPath) -> tuple[str, int]:
    """Give back what was reserved. Repeating it changes nothing."""
    await _reservations.release(path.order_ref, datetime.now(UTC))
    return "", 204
