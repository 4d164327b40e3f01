"""What the thread decides, without the thread; the thread itself is tested with the directory."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
import redis
import structlog

from app.mesh.keys import Keys
from app.mesh.lag import LoopLag
from app.mesh.registry import presence
from app.mesh.registry.record import Load
from app.mesh.registry.runner import BlockingRegistry
from app.settings import Settings
from tests.mesh.actors import beat, instance, mesh_of, until


def test_a_ready_instance_whose_loop_has_stood_still_for_a_lease_is_not_announced_as_ready() -> None:
    ready, draining = instance(), instance(state="draining")
    assert presence.announced(ready, Load(loop_lag_seconds=14.9), 15.0) is ready
    assert presence.announced(ready, Load(loop_lag_seconds=15.0), 15.0).state == "forced-out"
    assert presence.announced(draining, Load(loop_lag_seconds=99.0), 15.0) is draining


@pytest.mark.parametrize(("healthy", "least", "most"), [(True, 0.18, 0.22), (False, 0.18, 0.22)])
def test_beats_are_jittered_by_a_tenth(settings: Settings, healthy: bool, least: float, most: float) -> None:
    rng = random.Random(7)
    pauses = [presence.pause_seconds(settings.registry, healthy=healthy, rng=rng) for _ in range(1000)]
    assert least <= min(pauses) < least + 0.01
    assert most - 0.01 < max(pauses) <= most


def test_a_failed_beat_is_repeated_sooner_than_the_next_regular_one(settings: Settings) -> None:
    regular = settings.registry.model_copy(update={"heartbeat_seconds": 5.0})
    assert presence.pause_seconds(regular, healthy=True, rng=random.Random(7)) > 4
    assert presence.pause_seconds(regular, healthy=False, rng=random.Random(7)) < 1


async def test_the_lag_of_a_loop_that_stands_still_is_seen_from_outside() -> None:
    with LoopLag() as lag:
        await asyncio.sleep(0.3)
        before = lag.seconds
        time.sleep(0.6)  # noqa: ASYNC251  # the subject
        standing = lag.seconds
    assert before < standing
    assert standing > 0.3


async def test_load_and_state_are_what_the_registry_says(
    settings: Settings, redis_url: str, store: redis.Redis
) -> None:
    keys = Keys(settings.registry.namespace)
    async with mesh_of(settings, redis_url, "users", in_flight=lambda: 42) as users:
        await users.membership.register()
        await until(lambda: '"in_flight":42' in str(store.hget(keys.loads("users"), users.instance.id)))
        users.membership.set_state("draining")
        await until(lambda: '"draining"' in str(store.hget(keys.records("users"), users.instance.id)))
    assert store.hgetall(keys.records("users")) == {}


async def test_an_older_process_with_the_same_id_is_refused_and_says_so_once(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis
) -> None:
    keys = Keys(settings.registry.namespace)
    beat(registry, settings, instance(generation=2**52))
    with structlog.testing.capture_logs() as logs:
        async with mesh_of(settings, redis_url, "users", instance_id="users-1") as older:
            await older.membership.register()
            first = store.hget(keys.head, "swept_ms")
            await until(lambda: store.hget(keys.head, "swept_ms") != first)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "heartbeat refused: a newer process has this id, or it has left"
    ]
    # Its leave is refused as well: the newer one stays.
    assert store.hlen(keys.records("users")) == 1
