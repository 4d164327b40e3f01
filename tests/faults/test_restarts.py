"""Nothing is lost when every process of a system is replaced by another, one after the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from app.dev.state import Process
from tests.faults import redis, world
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.traffic import Mix, Traffic
from tests.faults.world import World

# That nothing at all fails under a steady load can be said of a machine alone that can carry the load.
pytestmark = [pytest.mark.timeout(600), pytest.mark.alone]

# What is asked for while processes come and go: reads, orders, and what takes long enough to be caught in flight. An order
# is six transactions in two services by the time that it is confirmed: more of them would be a test of the machine.
MIXED = {"user": 5.0, "order": 1.0, "echo": 1.0, "write": 1.0}
TAKES_SECONDS = 0.05


# One that is alone, one that has another one beside it, one that stands between others: that is all kinds.
REPLICAS = "users=2,inventory=1,orders=2,toy=1,gateway=2"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, pace: Pace) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("restarts")
    with (
        redis.running(folder / "redis") as server,
        world.running(folder, redis_url=server.url, environment=pace.settings, replicas=REPLICAS) as system,
    ):
        yield system


def nothing_is_lost(world: World, load: Traffic, note: Note) -> None:
    journal = load.journal
    note(journal)
    assert journal.failed.counts() == {}
    assert world.books.audit(journal) == []


def test_a_rollout_of_every_service_loses_nothing(world: World, pace: Pace, note: Note) -> None:
    before = world.replicas()
    world.tell_all(echo_seconds=TAKES_SECONDS)
    with world.under(Mix(pace.per_second, MIXED)) as load:
        time.sleep(pace.warm_seconds)
        for service in dict.fromkeys(process.service for process in before):
            rolled = world.mesh("rollout", service)
            assert rolled.returncode == 0, rolled.stderr
        time.sleep(pace.after_seconds)
    nothing_is_lost(world, load, note)
    assert {p.pid for p in world.replicas()} & {p.pid for p in before} == set()


@pytest.mark.parametrize("service", ["orders", "gateway"])
def test_whoever_sends_sigterm_to_one_replica_after_the_other_loses_nothing(
    world: World, pace: Pace, service: str, note: Note
) -> None:
    world.tell_all(echo_seconds=TAKES_SECONDS)
    with world.under(Mix(pace.per_second, MIXED)) as load:
        time.sleep(pace.warm_seconds)
        for process in world.replicas(service):
            replaced(world, process)
        time.sleep(pace.after_seconds)
    nothing_is_lost(world, load, note)


def replaced(world: World, process: Process) -> None:
    """SIGTERM, and the supervisor starts another one."""
    world.signal(process, signal.SIGTERM)
    world.wait_for_another(process)
    world.settle()
