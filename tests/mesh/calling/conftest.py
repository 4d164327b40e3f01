"""Who calls whom: a caller named orders, and instances of users that are announced to it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from app.mesh import Mesh
from app.mesh.registry.runner import BlockingRegistry
from app.settings import Settings
from tests.mesh.actors import Witness, beat, fast_settings, instance, mesh_of
from tests.mesh.calling.scenes import Announce, Open


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def announce(registry: BlockingRegistry, settings: Settings) -> Announce:
    """Somebody at `url` is a ready instance of users."""

    def one(url: str, id_: str = "users-1", **changes: Any) -> None:
        beat(registry, settings, instance(id=id_, url=url, **changes))

    return one


@pytest.fixture
def open_caller(settings: Settings, redis_url: str, witness: Witness) -> Open:
    """A caller with these settings of ``[client]``; `others` are whole tables of their own."""

    def opened(*, others: dict[str, Any] | None = None, **client: Any) -> AbstractAsyncContextManager[Mesh]:
        own = fast_settings(settings.registry.namespace, client=client, **(others or {}))
        return mesh_of(own, redis_url, "orders", observer=witness)

    return opened
