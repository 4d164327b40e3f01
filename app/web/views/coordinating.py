"""Locks and limits for views: those of the process that serves the request.

The client's address is that of whoever connected: behind the gateway, the gateway's. Limits by address belong there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Literal, TypeVar, cast

from flask import Response, after_this_request, request

from app import context
from app.errors import TooManyRequests
from app.mesh.coordination import Held, Limiter, Rate, Verdict
from app.mesh.coordination.coordination import LOCK_SECONDS, WAIT_SECONDS
from app.web.views.current import coordination
from app.web.views.decorating import decorating, runner

V = TypeVar("V", bound=Callable[..., Any])


def mesh_lock(
    name: str, *, ttl: float = LOCK_SECONDS, wait: float = WAIT_SECONDS
) -> AbstractAsyncContextManager[Held]:  # fmt: skip
    """``async with mesh_lock("invoices") as held``: see `app.mesh.coordination.lock.mesh_lock`."""
    return coordination.lock(name, ttl=ttl, wait=wait)


def rate_limited(
    rate: Rate | str,
    *,
    by: Literal["address", "caller"] | Callable[[], str] = "address",
    name: str | None = None,
    cost: int = 1,
) -> Callable[[V], V]:
    """Limit how often a view, async or plain, is called; it stands directly above the function, below the route.

    Every answer says how things stand, in RateLimit-Limit, -Remaining and -Reset; a refusal is a 429 with Retry-After.

    Args:
        rate: as in ``"100/minute"``, for the whole fleet.
        by: whose calls count together: of one address, of one calling service, or of what a function says.
        name: the limit's; the view's endpoint if not given. Views with one name share it.
    """
    rate = Rate.parse(rate) if isinstance(rate, str) else rate

    def decorate(view: V) -> V:
        @decorating(view)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            limiter = coordination.limiter(name or request.endpoint or "view", rate)
            verdict = await limiter.take(_who(by), cost)
            after_this_request(partial(_say, limiter, verdict))
            if not verdict.allowed:
                raise TooManyRequests(f"The limit {limiter.name} is used up", retry_after=verdict.retry_after)
            return await runner(view, args, kwargs)()

        return cast(V, wrapper)

    return decorate


def _who(by: Literal["address", "caller"] | Callable[[], str]) -> str:
    if callable(by):
        return by()
    current = context.current()
    if by == "caller" and current is not None and current.caller is not None:
        return f"caller {current.caller}"
    return f"address {request.remote_addr}"


def _say(limiter: Limiter, verdict: Verdict, response: Response) -> Response:
    response.headers["RateLimit-Limit"] = str(limiter.rate.size)
    response.headers["RateLimit-Remaining"] = str(verdict.remaining)
    response.headers["RateLimit-Reset"] = str(math.ceil(verdict.reset))
    return response
