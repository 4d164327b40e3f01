"""What the mesh's tests go by: times so short that they can be waited for, and a registry to look into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.mesh.registry.runner import BlockingRegistry
from app.settings import RegistrySettings, Settings
from tests.mesh import actors


@pytest.fixture
def settings(namespace: str) -> Settings:
    return actors.fast_settings(namespace)


@pytest.fixture
def registry_settings(settings: Settings) -> RegistrySettings:
    return settings.registry


@pytest.fixture
def registry(redis_url: str) -> Iterator[BlockingRegistry]:
    with closing(BlockingRegistry(redis_url)) as blocking:
        yield blocking
