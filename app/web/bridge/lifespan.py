"""Start-up and shut-down functions of an application, and ASGI's lifespan protocol that runs them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from app.errors import Misconfigured

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger("app.web.bridge.lifespan")


class Lifespan:
    """What happens around the serving of requests.

    Functions run in the order of their registration; what they opened is closed in the reverse order. A failing
    start-up function undoes what was opened before it, and the server is told the reason and does not start.
    """

    def __init__(self) -> None:
        self._contexts: list[Callable[[], Any]] = []

    def before_serving(self, function: F) -> F:
        """Register a plain or async function to run before the first request is accepted."""

        @asynccontextmanager
        async def context() -> AsyncIterator[None]:
            await _call(function)
            yield

        self._contexts.append(context)
        return function

    def after_serving(self, function: F) -> F:
        """Register a plain or async function to run after the last request."""

        @asynccontextmanager
        async def context() -> AsyncIterator[None]:
            try:
                yield
            finally:
                await _call(function)

        self._contexts.append(context)
        return function

    def while_serving(self, function: F) -> F:
        """Register an async generator function: what stands before its ``yield`` starts, what follows stops."""
        self._contexts.append(asynccontextmanager(function))
        return function

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Everything started for the length of the block."""
        async with AsyncExitStack() as stack:
            for context in self._contexts:
                await stack.enter_async_context(context())
            yield

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Speak the ASGI lifespan protocol."""
        await receive()
        phase = "startup"
        try:
            async with self.run():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Misconfigured as error:
            # Foreseen: the reason says all, and where in the code it was found says nothing to who reads it.
            await send({"type": f"lifespan.{phase}.failed", "message": error.detail})
            return
        except Exception as error:  # noqa: BLE001  # the server is told, whatever it is
            _log.exception("Lifespan %s failed", phase)
            await send({"type": f"lifespan.{phase}.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.shutdown.complete"})


async def _call(function: Callable[..., Any]) -> None:
    result = function()
    if inspect.isawaitable(result):
        await result
