from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis

from app.mesh.coordination import Coordination, Line, open_line
from app.mesh.keys import Keys
from tests.mesh.actors import Witness


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
async def line(redis_url: str, store: redis.Redis) -> AsyncIterator[Line]:
    async with open_line(redis_url, timeout_seconds=2.0) as opened:
        yield opened


@pytest.fixture
def coordination(line: Line, keys: Keys, witness: Witness) -> Coordination:
    return Coordination(line, keys, observer=witness)
