"""Peers of the orders that a test can make fail at any step; each keeps its contract as the real ones do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.errors import Unavailable
from app.services.orders.logic import Line, OutOfStock, UnknownItems


class Users:
    async def exists(self, user_id: int) -> bool:
        return user_id == 7


@dataclass
class Inventory:
    """Ten of each tea.

    Args:
        before: the next calls fail before they had any effect.
        after: the next calls take effect, and then fail: the answer is lost.
    """

    stock: dict[str, int] = field(default_factory=lambda: {"assam": 10, "sencha": 10})
    held: dict[str, Sequence[Line]] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    before: int = 0
    after: int = 0

    async def reserve(self, reference: str, lines: Sequence[Line]) -> None:
        self._fail_before()
        if reference in self.released:
            raise Unavailable("the reference was released")
        if unknown := [line.sku for line in lines if line.sku not in self.stock]:
            raise UnknownItems([{"path": "body.items.0.sku", "message": unknown[0], "type": "unknown_sku"}])
        if any(self.stock[line.sku] < line.quantity for line in lines):
            raise OutOfStock
        if reference not in self.held:
            self._move(lines, -1)
            self.held[reference] = lines
        self._fail_after()

    async def release(self, reference: str) -> None:
        self._fail_before()
        self._move(self.held.pop(reference, ()), +1)
        self.released.add(reference)
        self._fail_after()

    def _move(self, lines: Sequence[Line], sign: int) -> None:
        for line in lines:
            self.stock[line.sku] += sign * line.quantity

    def _fail_before(self) -> None:
        if self.before:
            self.before -= 1
            raise Unavailable("inventory is away", retry_after=1.0)

    def _fail_after(self) -> None:
        if self.after:
            self.after -= 1
            raise Unavailable("the answer was lost", retry_after=1.0)
