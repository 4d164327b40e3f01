"""The toy service of the events, and a shell whose REDIS_URL names its Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.events.conftest import database, shop
from tests.events.shop import settings

__all__ = ["database", "shop"]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'shop.sqlite3'}"


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, redis_url: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    """The environment of an operator who works on the toy's Redis; also that of this process."""
    environment = {
        "REDIS_URL": redis_url,
        "MESH_REGISTRY__NAMESPACE": namespace,
        "MESH_EVENTS__PARTITIONS": str(settings().partitions),
        "MESH_DATA_DIR": str(tmp_path / "data"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment
