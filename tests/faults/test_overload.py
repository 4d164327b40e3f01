"""A service that is asked for three times what it can do does what it can, and refuses the rest at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.faults import redis, world
from tests.faults.journal import Journal, Note
from tests.faults.pace import Pace
from tests.faults.traffic import Mix
from tests.faults.world import World

pytestmark = pytest.mark.timeout(600)

# What two toys can do: each so much at once, and each piece takes so long. It sleeps meanwhile, so that the figure
# hardly depends on the machine; where that wakes it late, it says so.
TOYS, SLOTS, WORK_SECONDS = 2, 4, 0.2
CAPACITY_PER_SECOND = TOYS * SLOTS / WORK_SECONDS
AT_ONCE_SECONDS = 0.05


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, pace: Pace) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("overload")
    replicas = f"users=2,toy={TOYS}"
    with (
        redis.running(folder / "redis") as server,
        world.running(
            folder,
            redis_url=server.url,
            environment=pace.settings,
            replicas=replicas,
            without=("orders", "inventory"),
        ) as system,
    ):
        yield system


def test_at_three_times_its_capacity_a_service_does_what_it_can_and_refuses_the_rest_at_once(
    world: World, pace: Pace, note: Note
) -> None:
    """How soon a refusal comes is judged beside the answers of a service that has time, from the same seconds.

    On a quiet machine 99 of 100 come within 50 ms. Where the machine itself is busy, whatever goes through the gateway
    is late; then the refusals may be as late as those answers, but for a few in a hundred.
    """
    world.tell_all(work_seconds=WORK_SECONDS, work_slots=SLOTS)
    shares = {"work": 3 * CAPACITY_PER_SECOND, "user": 20.0}
    with world.under(Mix(sum(shares.values()), shares)) as load:
        time.sleep(pace.warm_seconds)
        begin = time.monotonic()
        time.sleep(pace.storm_seconds)
        end = time.monotonic()
    work = load.journal.of_kind("work")
    done = work.where(lambda outcome: outcome.status == 200 and begin <= outcome.ended < end)
    refused = work.between(begin, end).where(lambda outcome: outcome.status == 503)
    beside = load.journal.of_kind("user").between(begin, end)
    goodput, possible = len(done) / (end - begin), TOYS * SLOTS / world.piece_seconds()
    soon, usual_seconds = share_within(refused, AT_ONCE_SECONDS), max(AT_ONCE_SECONDS, beside.seconds(99))
    note(f"{load.journal}; goodput {goodput:.0f}/s of {possible:.0f}/s; within 50 ms: {soon:.1%} of {refused}")
    assert load.journal.failed.counts() == {}
    assert goodput >= 0.9 * possible
    # What is beyond its capacity is refused, and not kept waiting.
    assert len(refused) >= CAPACITY_PER_SECOND * (end - begin)
    assert soon >= 0.99 or share_within(refused, usual_seconds) >= 0.95, f"usual beside: {usual_seconds:.3f} s"


def share_within(journal: Journal, seconds: float) -> float:
    return 1 - len(journal.slower_than(seconds)) / max(1, len(journal))
