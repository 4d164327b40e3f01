"""A service that always fails is not beaten further: not by those who repeat, and not by those behind them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from tests.faults import redis, world
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.traffic import Mix
from tests.faults.world import World

pytestmark = pytest.mark.timeout(600)

# As delivered, breakers and ejections keep nearly everything away. The budget has to hold without them, too.
BUDGET_ALONE = {"MESH_BREAKER__ENABLED": "false", "MESH_BALANCING__EJECTION": "false"}
# Over so long a budget is spent.
WINDOW_SECONDS = 10.0


@pytest.fixture(scope="module", params=[{}, BUDGET_ALONE], ids=["as delivered", "the budget alone"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pace: Pace) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("storm")
    with (
        redis.running(folder / "redis") as server,
        world.running(
            folder,
            redis_url=server.url,
            environment={**pace.settings, **request.param},
            replicas="users=2,toy=2",
            without=("orders", "inventory"),
        ) as system,
    ):
        yield system


def test_a_service_that_always_fails_gets_hardly_more_than_is_asked_of_it(world: World, pace: Pace, note: Note) -> None:
    """The toys also ask one another for what fails, for which only one of the two layers may ask again."""
    with world.under(Mix(pace.per_second, {"broken": 2.0, "relay": 1.0, "user": 1.0})) as load:
        began = time.monotonic()
        time.sleep(pace.storm_seconds)
    journal, seconds = load.journal, time.monotonic() - began
    broken, relay = len(journal.of_kind("broken")), len(journal.of_kind("relay"))
    seen = {view: world.seen_by_all(view) for view in ("broken", "relay", "bottom")}
    note(f"{journal}; of {broken} + {relay} arrived {seen} in {seconds:.1f} s")
    # The service's neighbour is none the worse for it.
    assert journal.failed.counts() == {}
    assert 0 < seen["broken"] + seen["relay"] <= allowed(broken + relay, seconds)
    # What is a repetition already is not repeated again.
    assert seen["bottom"] <= seen["relay"] + relay


def allowed(offered: int, seconds: float) -> float:
    """A fifth more than was offered, and ten a second, which are counted by windows: those of one may come at once."""
    return 1.2 * offered + 10 * WINDOW_SECONDS * math.ceil(seconds / WINDOW_SECONDS)
