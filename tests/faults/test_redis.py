"""Redis stops, forgets, hangs, falls back into the past: no request notices, and the registry is whole again at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.dev.system import until
from tests.faults import proxy, redis, world
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.proxy import Proxy
from tests.faults.redis import Redis
from tests.faults.traffic import Mix
from tests.faults.world import World, take_time

pytestmark = pytest.mark.timeout(600)


@dataclass
class Stage:
    """Two servers, and the line by which the system reaches one of them."""

    server: Redis
    spare: Redis
    line: Proxy

    def promote_the_spare(self) -> None:
        self.server, self.spare = self.spare, self.server
        self.line.lead_to("127.0.0.1", self.server.port)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("servers")
    with (
        redis.running(folder / "first") as first,
        redis.running(folder / "second", password=first.password) as second,
        proxy.to("127.0.0.1", first.port) as line,
    ):
        yield Stage(first, second, line)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, pace: Pace, stage: Stage) -> Iterator[World]:
    with world.running(
        tmp_path_factory.mktemp("redis"),
        redis_url=stage.server.url_at(stage.line.port),
        environment=pace.settings,
        replicas="users=2,orders=2,inventory=2,toy=1",
    ) as system:
        yield system


def stopped_and_restarted_empty(stage: Stage, world: World, pace: Pace) -> None:
    stage.server.kill()
    time.sleep(pace.redis_away_seconds)
    stage.server.start()


def stood_still(stage: Stage, world: World, pace: Pace) -> None:
    stage.server.stand_still()
    time.sleep(pace.redis_away_seconds)
    stage.server.move_on()


def flushed(stage: Stage, world: World, pace: Pace) -> None:
    for _ in range(10):
        stage.server.flush()
        time.sleep(0.2)


def put_to_sleep(stage: Stage, world: World, pace: Pace) -> None:
    stage.server.sleep(pace.redis_hung_seconds)
    time.sleep(pace.redis_hung_seconds)


def reset_and_cut_off(stage: Stage, world: World, pace: Pace) -> None:
    for _ in range(10):
        stage.line.reset()
        time.sleep(0.1)
    stage.line.cut()
    time.sleep(pace.redis_hung_seconds)
    stage.line.mend()


def failed_over_to_a_stale_replica(stage: Stage, world: World, pace: Pace) -> None:
    """The replica stops following, the world moves on, and then the replica is promoted with what it has."""
    stage.spare.follow(stage.server)
    stage.spare.stop_following()
    one = world.replica("users", 2)
    world.signal(one, signal.SIGTERM)
    world.wait_for_another(one)
    world.settle()
    stage.promote_the_spare()


@pytest.mark.parametrize(
    "happens",
    [
        stopped_and_restarted_empty,
        stood_still,
        flushed,
        put_to_sleep,
        reset_and_cut_off,
        failed_over_to_a_stale_replica,
    ],
)
def test_no_request_notices_that_redis_was(
    world: World, stage: Stage, pace: Pace, happens: Callable[[Stage, World, Pace], None], note: Note
) -> None:
    with world.under(Mix(pace.per_second)) as load:
        time.sleep(pace.warm_seconds)
        happens(stage, world, pace)
        back = time.monotonic()
        seconds = take_time("everybody is registered", world.has_everybody)
        whole = time.monotonic()
        time.sleep(pace.after_seconds)
        # Who is in a stale copy and lives no more goes when its lease ends.
        until("nobody else is", world.is_whole)
    journal = load.journal
    # Redis is no matter to a request: whoever waited meanwhile has waited for the machine, as the heartbeats had to.
    late = max((outcome.seconds for outcome in journal.between(back, whole)), default=0.0)
    note(f"whole again after {seconds:.1f} s, a request waited {late:.1f} s; {journal}")
    assert journal.failed.counts() == {}
    assert world.books.audit(journal) == []
    assert seconds <= pace.whole_again_seconds + late


def test_a_process_that_starts_while_redis_is_down_serves_from_its_copy_on_disk(
    world: World, stage: Stage, pace: Pace, note: Note
) -> None:
    stage.server.kill()
    for service in ("gateway", "orders"):
        before = world.replica(service)
        world.signal(before, signal.SIGKILL)
        after = world.wait_for_another(before)
        assert "starting from the directory on disk" in world.log_of(after)
    with world.under(Mix(pace.per_second)) as load:
        time.sleep(pace.warm_seconds)
        stage.server.start()
        until("everybody is registered", world.is_whole)
        time.sleep(pace.after_seconds)
    journal = load.journal
    note(journal)
    assert journal.failed.counts() == {}
    assert world.books.audit(journal) == []
