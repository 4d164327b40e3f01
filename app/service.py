"""What a service is, and how one is found: a folder with a ``service = Service(…)`` is all it takes.

``app/services/<name>/__init__.py`` makes a service; there is no list to edit. The gateway is the one service that
lives in a room of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import Misconfigured

if TYPE_CHECKING:  # the supervisor reads service definitions, and starts sooner without Flask
    from flask import Blueprint
    from sqlalchemy import MetaData

    from app.events import Handlers, Outbox

SERVICES_PACKAGE = "app.services"
GATEWAY = "gateway"
# The authorization server: the one that all the others believe.
IDENTITY = "identity"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PREFIX = re.compile(r"(/[a-z0-9._~-]+)+")


@dataclass(frozen=True, slots=True)
class Service:
    """One service, as its folder declares it.

    Args:
        name: its name in the mesh; the same as its folder's.
        blueprints: its routes.
        prefixes: the public path prefixes that the gateway sends here, as in ``("/users",)``.
        models: the SQLAlchemy metadata of its own tables, if it has a database.
        migrations: the folder of its Alembic revisions; required with `models`.
        seed: ``async seed(database, settings)`` puts demo data into an empty database; runs in development only.
        outbox: what it sends, if it sends or handles events.
        handlers: what it does when something happens elsewhere.
        alongside: ``async with alongside(resources)`` is held open while it serves, for work of its own; what it raises
            when it begins keeps the process from starting.
        calls: the services that it calls, for pictures and for the start order.
        front: ``front(app, resources)`` wraps the finished ASGI application; only the gateway needs it.
        callers: the only services that may call its routes, besides the public ones; empty for any.
        description: one sentence for the OpenAPI document.
    """

    name: str
    blueprints: tuple[Blueprint, ...] = ()
    prefixes: tuple[str, ...] = ()
    models: MetaData | None = None
    migrations: Path | None = None
    seed: Callable[[Any, Any], Awaitable[None]] | None = None
    outbox: Outbox | None = None
    handlers: Handlers | None = None
    alongside: Callable[[Any], AbstractAsyncContextManager[None]] | None = None
    calls: tuple[str, ...] = ()
    front: Callable[..., Any] | None = None
    callers: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Misconfigured(f"Service name {self.name!r}: a lower-case letter, then letters, digits, underscores")
        for prefix in self.prefixes:
            if not _PREFIX.fullmatch(prefix):
                raise Misconfigured(f"Service {self.name}: prefix {prefix!r} must look like /users")
        if self.models is not None and self.migrations is None:
            raise Misconfigured(f"Service {self.name}: models need a migrations folder")
        if self.handlers is not None and self.outbox is None:
            raise Misconfigured(f"Service {self.name}: handlers need an outbox, whose tables they use")


def discover() -> list[str]:
    """The names of all services, sorted; the gateway last, since it needs the others to be of use."""
    package = importlib.import_module(SERVICES_PACKAGE)
    found = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg)
    return [*found, GATEWAY]


def load(name: str) -> Service:
    """Import the service `name`.

    Raises:
        Misconfigured: no such service, or its package has no ``service`` of that name.
    """
    known = discover()
    if name not in known:
        raise Misconfigured(f"No service {name!r}; there are: {', '.join(known)}")
    module = importlib.import_module(f"app.{GATEWAY}" if name == GATEWAY else f"{SERVICES_PACKAGE}.{name}")
    service = getattr(module, "service", None)
    if not isinstance(service, Service) or service.name != name:
        raise Misconfigured(f"{module.__name__} must define service = Service({name!r}, …)")
    return service
