"""What the databases say when all is over: who ordered what, how often, and what is held for it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.dev.system import until
from tests.faults import kinds
from tests.faults.journal import Journal, Outcome

# Where the toys write; they are not imported here, since they belong to another process.
LEDGER = "toy.ledger"

Order = tuple[int, str, int]

_ORDERS = """
    SELECT orders.user_id, order_lines.sku, order_lines.quantity
    FROM orders JOIN order_lines ON order_lines.order_id = orders.id WHERE orders.state = 'confirmed'
"""


class Books:
    """The databases of a system on SQLite, read beside it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def orders(self) -> Counter[Order]:
        """How often each order was placed, and confirmed."""
        return Counter(tuple(row) for row in self._rows("orders", _ORDERS))

    def writes(self) -> Counter[int]:
        """How often each number was written by the toys."""
        ledger = self._data_dir / LEDGER
        return Counter(int(line) for line in ledger.read_text().split()) if ledger.exists() else Counter()

    def audit(self, journal: Journal) -> list[str]:
        """What is wrong: done twice, lost, an order without its reservation, or a reservation without its order.

        It waits until every order has come to its end. What was not answered with success may have happened or not; it
        has never happened twice.
        """
        until("every order has come to its end", lambda: not self._rows("orders", _PENDING))
        orders, writes = self.orders(), self.writes()
        wrong = [_wrong(outcome, orders[_key(outcome.number)]) for outcome in journal.of_kind("order")]
        wrong += [_wrong(outcome, writes[outcome.number]) for outcome in journal.of_kind("write")]
        return [words for words in wrong if words] + self._unreserved()

    def _unreserved(self) -> list[str]:
        held = {reference for (reference,) in self._rows("inventory", _HELD)}
        confirmed = {reference for (reference,) in self._rows("orders", _CONFIRMED)}
        words = [f"the order with reference {reference} has no reservation" for reference in sorted(confirmed - held)]
        return words + [
            f"for the reference {reference} stock is held in vain" for reference in sorted(held - confirmed)
        ]

    def _rows(self, service: str, query: str) -> list[tuple[Any, ...]]:
        path = self._data_dir / f"{service}.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()


_PENDING = "SELECT id FROM orders WHERE state = 'pending' LIMIT 1"
_HELD = "SELECT order_ref FROM inventory_reservations WHERE state = 'held'"
_CONFIRMED = "SELECT reference FROM orders WHERE state = 'confirmed'"


def _wrong(outcome: Outcome, times: int) -> str:
    if times > 1:
        return f"number {outcome.number} happened {times} times; its client saw: {outcome}"
    return f"number {outcome.number} is lost; its client saw: {outcome}" if times == 0 and not outcome.fault else ""


def _key(number: int) -> Order:
    placed = kinds.order(number)
    [line] = placed["items"]
    return placed["user_id"], line["sku"], line["quantity"]
