"""How a client that prefers to wait (RFC 7240) hears what has become of its order: the database is asked, ever less often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from app.errors import Unavailable
from app.services.orders.logic import Order, Orders, State


@dataclass(frozen=True, slots=True)
class Pauses:
    """From `first_seconds` on, each `growth` times as long as the one before, up to `longest_seconds`."""

    first_seconds: float = 0.01
    growth: float = 1.5
    longest_seconds: float = 0.5


async def until_settled(
    order: Order,
    orders: Orders,
    *,
    seconds: float,
    pauses: Pauses = Pauses(),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Order:
    """The order as it is when it is no longer pending, or when `seconds` are over.

    A database that goes away meanwhile is no reason to fail: the order is written down.
    """
    end, pause = clock() + seconds, pauses.first_seconds
    while order.state is State.PENDING and (left := end - clock()) > 0:
        await sleep(min(pause, left))
        pause = min(pauses.longest_seconds, pause * pauses.growth)
        with suppress(Unavailable):
            order = await orders.find(order.id) or order
    return order
