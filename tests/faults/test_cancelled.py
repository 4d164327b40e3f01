"""One call in ten is given up by its caller at any moment: nothing stays behind, and no answer goes to another."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from app import settings as app_settings
from tests.dev.system import until
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.traffic import Mix
from tests.faults.world import World
from tests.mesh import actors
from tests.tokens import bearer

pytestmark = pytest.mark.timeout(600)

MIXED = {"user": 2.0, "order": 1.0, "echo": 2.0, "write": 1.0}
TAKES_SECONDS = 0.02
CALLERS = 20
ENOUGH_CANCELLED, ENOUGH_ANSWERED = 20, 1000


def test_clients_that_hang_up_leave_nothing_behind(world: World, pace: Pace, note: Note) -> None:
    world.tell_all(echo_seconds=TAKES_SECONDS)
    mix = Mix(pace.per_second, MIXED, cancelled_share=0.1, cancelled_within_seconds=2 * TAKES_SECONDS)
    with world.under(mix) as load:
        time.sleep(pace.cancelling_seconds)
        until("enough were given up", lambda: len(load.journal.cancelled) >= ENOUGH_CANCELLED)
    journal = load.journal
    note(journal)
    # An answer that belongs to another request would be among them, as "foreign".
    assert journal.failed.counts() == {}
    assert world.books.audit(journal) == []
    until("nothing is left behind", lambda: not left_behind(world))
    # Whatever had leaked would be missing now: more at once than any pool of theirs holds.
    with world.under(Mix(2 * pace.per_second, {"user": 3.0, "order": 1.0})) as load:
        time.sleep(pace.after_seconds)
    assert load.journal.failed.counts() == {}


def left_behind(world: World) -> dict[str, int]:
    """What the processes still have in hand, by process and place; the question itself does not count."""
    found = {}
    for process in world.replicas():
        insight = world.insight(process)
        calls, name = insight["calls"], f"{process.service}-{process.number}"
        found[f"{name} serves"] = insight["requests_in_flight"] - 1
        found[f"{name} admitted"] = insight["admission"]["in_flight"]
        found[f"{name} calls"] = calls["in_flight"] + calls["flights"]
        for called, service in calls["services"].items():
            found[f"{name} at {called}"] = sum(peer["in_flight"] for peer in service["peers"])
    return {where: count for where, count in found.items() if count}


async def test_calls_that_are_cancelled_leave_nothing_behind_in_the_caller(
    world: World, pace: Pace, note: Note
) -> None:
    world.tell_all(echo_seconds=TAKES_SECONDS)
    settings = app_settings.load()
    done: Counter[str] = Counter()
    rng = random.Random(11)
    headers = bearer(world.token())
    async with actors.mesh_of(settings, world.redis_url) as mesh:

        async def call(number: int) -> None:
            reply = await mesh.get("toy", f"/toy/echo/{number}", timeout=5.0, headers=headers)
            done["answered" if reply.expect(200).json() == {"number": number} else "foreign"] += 1

        async def caller(lane: int, end: float) -> None:
            number = lane * 1_000_000
            while time.monotonic() < end or done["answered"] < ENOUGH_ANSWERED:
                number += 1
                patience = rng.uniform(0.0, 2 * TAKES_SECONDS) if rng.random() < 0.1 else 10.0
                try:
                    async with asyncio.timeout(patience):
                        await call(number)
                except TimeoutError:
                    done["cancelled"] += 1

        end = time.monotonic() + pace.cancelling_seconds
        await asyncio.gather(*(caller(lane, end) for lane in range(CALLERS)))
        note(done)
        assert done["cancelled"] > done["answered"] / 40
        assert done["foreign"] == 0
        assert mesh.balancer.in_flight == 0
