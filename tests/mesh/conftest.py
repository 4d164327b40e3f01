"""A namespace of each test's own, and a check that no test leaves an unbounded key in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from app.mesh.keys import Keys
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
def keys(namespace: str) -> Keys:
    return Keys(namespace)


@pytest.fixture
def store(redis_url: str, namespace: str) -> Iterator[redis.Redis]:
    """Redis itself; afterwards every key of the namespace must have a TTL."""
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        yield client
        unbounded = [key for key in client.scan_iter(f"{{{namespace}}}:*") if client.ttl(key) == -1]
        assert unbounded == []


@pytest.fixture
def registry(redis_url: str) -> Iterator[BlockingRegistry]:
    with closing(BlockingRegistry(redis_url)) as blocking:
        yield blocking
