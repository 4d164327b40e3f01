"""For decorators of views: the wrapper is async, the view below it may be either."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, cast, get_type_hints

from flask import Response, current_app

from app.web.bridge import AsyncFlask
from app.web.bridge.switch import in_thread

Run = Callable[[], Awaitable[Response]]
Wrapper = Callable[..., Awaitable[Any]]


def decorating(view: Callable[..., Any]) -> Callable[[Wrapper], Wrapper]:
    """`functools.wraps` for a wrapper that is async whatever is below it: who unwraps it must not find a plain view."""

    def decorate(wrapper: Wrapper) -> Wrapper:
        wrapped: Any = wraps(view)(wrapper)
        del wrapped.__wrapped__
        try:
            # Without __wrapped__ nobody finds the module in which the names of the annotations stand.
            wrapped.__annotations__ = get_type_hints(view)
        except NameError:
            wrapped.__annotations__ = dict(view.__annotations__)
        return cast(Wrapper, wrapped)

    return decorate


def runner(view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
    """One call of `view`, made where it has to run: on the loop, or on a worker thread if it is plain."""
    return partial(_run, view, args, kwargs)


async def _run(view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Response:
    app = cast(AsyncFlask, current_app)
    if inspect.iscoroutinefunction(view):
        result = await view(*args, **kwargs)
    else:
        result = await in_thread(app.thread_pool, partial(view, *args, **kwargs))
        if hasattr(result, "__await__"):
            result = await result
    return app.make_response(result)
