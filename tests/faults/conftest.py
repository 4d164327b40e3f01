"""What every scenario has: its pace, and a system that is whole before anything breaks.

What a test counted is printed below the results, whether it passed or not: `note` it.

A test asks for `world`, which is its module's `system`, healed. Where a module makes none of its own, that is the one
that all of them share: three replicas of every service.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import summary
from tests.faults import pace as paces
from tests.faults import redis, world
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.redis import Redis
from tests.faults.world import World


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Write down what was counted, before it is judged."""
    return summary.note_of(request)


@pytest.fixture(scope="session")
def pace(pytestconfig: pytest.Config) -> Pace:
    return paces.LONG if pytestconfig.getoption("--long") else paces.SHORT


# Of the package, and not of the session: fourteen processes need not run beside all other tests.
@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """The Redis of the shared system."""
    with redis.running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory, pace: Pace, server: Redis) -> Iterator[World]:
    with world.running(
        tmp_path_factory.mktemp("world"),
        redis_url=server.url,
        environment=pace.settings,
        replicas="users=3,orders=3,inventory=3,toy=3",
    ) as system:
        yield system


@pytest.fixture(name="world")
def whole_world(system: World) -> World:
    system.settle()
    return system
