"""Users and inventory, as the mesh reaches them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ValidationError

from app.errors import BadReply, Unavailable
from app.mesh import Mesh, Reply
from app.services.orders.logic import Line, OutOfStock, UnknownItems

RETRY_AFTER_SECONDS = 1.0

# The lines are sent in the order in which they came, so their paths are those of our own client's request.
_LINE = re.compile(r"body\.items\.\d+\.sku")


class _Fault(BaseModel):
    path: str
    message: str
    type: str = "unknown_sku"


class _Refusal(BaseModel):
    """What is read of the inventory's problem documents."""

    code: str
    detail: str = ""
    skus: list[str] = []
    shortages: list[dict[str, Any]] = []
    errors: list[_Fault] = []


class MeshUsers:
    """The users service."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def exists(self, user_id: int) -> bool:
        with _coming_back():
            reply = await self._mesh.get("users", f"/users/{user_id}")
            return reply.expect(200, 404).status == 200


class MeshInventory:
    """The inventory service."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def reserve(self, reference: str, lines: Sequence[Line]) -> None:
        body = {
            "order_ref": reference,
            "items": [{"sku": line.sku, "quantity": line.quantity} for line in lines],
        }
        with _coming_back():
            reply = await self._mesh.request(
                "POST", "inventory", "/inventory/reservations", json=body, idempotency_key=reference
            )
            if not reply.expect(200, 201, 409, 422).ok:
                raise _refusal(reply)

    async def release(self, reference: str) -> None:
        with _coming_back():
            reply = await self._mesh.delete("inventory", f"/inventory/reservations/{reference}")
            reply.expect(204)


def _refusal(reply: Reply) -> OutOfStock | UnknownItems | BadReply:
    """What the inventory means by its 409 or 422; BadReply if it is neither of what we can put down to the order."""
    try:
        said = _Refusal.model_validate(reply.json())
    except ValidationError:
        return BadReply(f"inventory answered {reply.status} without saying why")
    if reply.status == 409 and said.skus:
        return OutOfStock(said.detail, extensions={"skus": said.skus, "shortages": said.shortages})
    if reply.status == 422 and said.errors and all(_LINE.fullmatch(fault.path) for fault in said.errors):
        return UnknownItems([fault.model_dump() for fault in said.errors])
    return BadReply(f"inventory answered {reply.status}: {said.code}")


@contextmanager
def _coming_back() -> Iterator[None]:
    """Whoever is away comes back: tell the client when to ask again, also if neither peer nor mesh has said it."""
    try:
        yield
    except Unavailable as error:
        if error.retry_after is None:
            error.retry_after = RETRY_AFTER_SECONDS
        raise
