"""When what was left half-way is settled: a process that was killed between two steps of an order left it so.

There is no timer: a process that places orders also looks, once in a while, for those that nobody has finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app import telemetry
from app.errors import PlatformError
from app.services.orders import logic
from app.services.orders.logic import Inventory, Order, Orders

_log = telemetry.log("orders.recovery")


@dataclass(frozen=True, slots=True)
class Policy:
    """Look every `interval_seconds` for up to `batch` orders that are older than `age`.

    `age` is longer than any request may take, so that no order is settled under the hands of its own placing.
    """

    interval_seconds: float = 30.0
    age: timedelta = timedelta(minutes=2)
    batch: int = 10


class Journal(Orders, Protocol):
    """Orders, among which one can look for the unsettled."""

    async def unsettled(self, *, before: datetime, limit: int) -> Sequence[Order]: ...


class Recovery:
    """Settles unfinished orders of any process, at most once per interval in this one.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, policy: Policy, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._next = float("-inf")

    async def run_if_due(self, orders: Journal, inventory: Inventory, *, now: datetime) -> int:
        """Settle some, and return how many; stops at the first that fails, which a later run repeats. Never raises."""
        if self._clock() < self._next:
            return 0
        self._next = self._clock() + self._policy.interval_seconds
        settled = 0
        try:
            for order in await orders.unsettled(before=now - self._policy.age, limit=self._policy.batch):
                await logic.settle(order, orders, inventory)
                settled += 1
                _log.warning("settled an unfinished order", order=order.id, state=order.state)
        except PlatformError as error:
            _log.warning("unfinished orders must wait", error=repr(error))
        return settled
