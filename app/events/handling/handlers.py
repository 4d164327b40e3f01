"""Who handles which event: one async function for each type and version, called in the transaction of the inbox.

    handlers = Handlers()

    @handlers.on(OrderPlaced)
    async def reserve(placed: OrderPlaced, session: AsyncSession) -> None: ...

What it writes with `session` commits together with the note that the event was handled, so it takes effect once, however often the
event comes. It must not wait for others meanwhile. A function that does, to call a peer or to send mail, takes the event alone:

    @handlers.on(OrderConfirmed)
    async def tell(confirmed: OrderConfirmed) -> None: ...

It runs outside of any transaction, and the note follows; after a crash between the two it runs again, so it should send the event's
id along as the idempotency key (`envelope().id`). Errors have the event handled again, later.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from app.errors import Misconfigured
from app.events.envelope import CloudEvent
from app.events.event import Event, Kind, kind

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, None]])

_current: ContextVar[CloudEvent | None] = ContextVar("app.events.envelope", default=None)


@dataclass(frozen=True, slots=True)
class Handler:
    """`call` handles `event`; `transactional`: within the transaction of the inbox."""

    event: type[Event]
    call: Callable[..., Coroutine[Any, Any, None]]
    transactional: bool

    @property
    def name(self) -> str:
        return self.call.__qualname__


class Handlers:
    """What one service does when something happens elsewhere, or with itself."""

    def __init__(self) -> None:
        self._handlers: dict[Kind, Handler] = {}
        self._types: set[str] = set()

    def __repr__(self) -> str:
        return f"<Handlers of {', '.join(sorted(self._types)) or 'nothing'}>"

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    def on(self, event: type[Event]) -> Callable[[F], F]:
        """Register an async function of the event and a session, or of the event alone, for one type and version of events.

        Raises:
            Misconfigured: there is one already; what takes two steps is one function that calls two.
            TypeError: the function is not async, or takes something else.
        """

        def register(function: F) -> F:
            taken = len(inspect.signature(function).parameters)
            is_async: bool = inspect.iscoroutinefunction(function)
            if not is_async or taken not in (1, 2):
                raise TypeError(f"{function!r} must be async and take an event and a session, or an event")
            if kind(event) in self._handlers:
                raise Misconfigured(f"{event.event_type} {event.event_version} has a handler already")
            self._handlers[kind(event)] = Handler(event, function, transactional=taken == 2)
            self._types.add(event.event_type)
            return function

        return register

    def find(self, type_: str, version: int) -> Handler | None:
        return self._handlers.get((type_, version))

    def knows(self, type_: str) -> bool:
        """Whether any version of that type is handled."""
        return type_ in self._types

    @property
    def services(self) -> tuple[str, ...]:
        """Whose events are heard, sorted."""
        return tuple(sorted({handler.event.service() for handler in self}))


def envelope() -> CloudEvent:
    """The event that is being handled here, with all that travelled with it.

    Raises:
        LookupError: none is.
    """
    found = _current.get()
    if found is None:
        raise LookupError("No event is being handled here")
    return found


@contextmanager
def handling(event: CloudEvent) -> Iterator[None]:
    """`event` is the one that is being handled, for the length of the block."""
    token = _current.set(event)
    try:
        yield
    finally:
        _current.reset(token)
