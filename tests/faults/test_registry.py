"""Clocks that jump, and records that lie: nothing comes of it but a warning."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from app import settings as app_settings
from app.mesh.keys import Keys
from app.mesh.registry import operations, record
from app.mesh.registry.operations import Operation
from app.mesh.registry.record import Instance, Load
from tests.dev.system import until
from tests.faults.journal import Note
from tests.faults.pace import Pace
from tests.faults.redis import Redis
from tests.faults.traffic import Mix
from tests.faults.world import World

pytestmark = pytest.mark.timeout(600)

MIXED = {"user": 3.0, "order": 1.0, "echo": 2.0, "write": 1.0}
AN_HOUR = 3600
WARNING = "poisoned record ignored"

# TIME itself cannot be moved; but for whoever compares, it is the same whether it jumps or all that was written does.
MOVE_ALL = """
local by, prefix = tonumber(ARGV[1]), ARGV[2]
local head = prefix .. 'head'
for _, field in ipairs({'beat_ms', 'swept_ms'}) do
  local was = tonumber(redis.call('HGET', head, field) or '')
  if was then redis.call('HSET', head, field, string.format('%.0f', was + by)) end
end
local moved = 0
for _, service in ipairs(redis.call('SMEMBERS', prefix .. 'services')) do
  local leases = prefix .. 'exp:' .. service
  for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    redis.call('ZINCRBY', leases, by, id)
    moved = moved + 1
  end
end
return moved
"""


@pytest.fixture
def keys() -> Keys:
    return Keys(app_settings.load().registry.namespace)


# ------------------------------------------------------------------------------------------------ clocks


def test_nobody_is_lost_when_the_clock_of_redis_jumps_there_and_back(
    world: World, pace: Pace, server: Redis, keys: Keys, note: Note
) -> None:
    with world.under(Mix(pace.per_second, MIXED)) as load:
        time.sleep(pace.warm_seconds)
        for seconds in (AN_HOUR, -AN_HOUR):
            with server.client() as client:
                moved = client.eval(MOVE_ALL, 0, -seconds * 1000, keys.prefix)
            assert moved == len(world.replicas())
            watched(world, pace.lease_seconds + pace.heartbeat_seconds)
    note(load.journal)
    assert load.journal.failed.counts() == {}
    assert world.books.audit(load.journal) == []


def test_nobody_is_lost_when_the_clock_of_a_process_jumps_there_and_back(world: World, pace: Pace, note: Note) -> None:
    """A toy's wall clock; it is called, and calls others."""
    toy = world.replica("toy", 1)
    with world.under(Mix(pace.per_second, {"echo": 1.0, "ask": 1.0, "write": 1.0})) as load:
        time.sleep(pace.warm_seconds)
        for seconds in (AN_HOUR, -AN_HOUR):
            world.tell(toy, clock_ahead_seconds=seconds)
            watched(world, pace.lease_seconds + pace.heartbeat_seconds)
        world.tell(toy)
    note(load.journal)
    assert load.journal.failed.counts() == {}
    assert world.books.audit(load.journal) == []


def watched(world: World, seconds: float) -> None:
    """For so long, the registry has everybody whenever one looks."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert world.is_whole()
        time.sleep(0.1)


# ------------------------------------------------------------------------------------------------ lies


def lie(kind: str, true: Instance) -> bytes:
    """What a record says that is not to be believed."""
    if kind == "forbidden-address":
        return record.encode(dataclasses.replace(true, url="http://192.0.2.7:80"))
    if kind == "broken-json":
        return record.encode(true)[:-9]
    if kind == "ten-megabytes":
        return b"%d %b" % (true.generation, b'{"service":"' + b"u" * 10_000_000 + b'"}')
    return record.encode(dataclasses.replace(true, id="somebody-else"))


@pytest.mark.parametrize("kind", ["forbidden-address", "broken-json", "ten-megabytes", "borrowed-name"])
def test_a_poisoned_record_changes_nothing_but_a_warning(
    world: World, pace: Pace, server: Redis, keys: Keys, kind: str, note: Note
) -> None:
    """Under a new name, and in the place of a member's own record."""
    member = next(each.instance for each in world.registered() if each.instance.service == "users")
    # A name of its own: who has left stays away for a while.
    stranger = dataclasses.replace(member, id=f"stranger-{kind}")
    gateway = world.replica("gateway")
    with world.under(Mix(pace.per_second, MIXED)) as load:
        known, warnings = world.known_to(gateway), world.log_of(gateway).count(WARNING)
        put(server, heartbeat(keys, stranger, lie(kind, stranger)))
        until("it is noticed", lambda: world.log_of(gateway).count(WARNING) > warnings)
        # This one is gone with the next heartbeat of the member itself.
        put(server, heartbeat(keys, member, lie(kind, member)))
        until("the member's own record is back", world.has_everybody)
        time.sleep(pace.heartbeat_seconds + pace.poll_seconds)
        assert world.known_to(gateway) == known
    note(load.journal)
    put(server, operations.deregister(keys, app_settings.load().registry, stranger))
    assert load.journal.failed.counts() == {}
    assert world.books.audit(load.journal) == []


def heartbeat(keys: Keys, instance: Instance, raw: bytes) -> Operation[operations.Beat]:
    """A heartbeat of `instance` with a record that it would never write."""
    beat = operations.heartbeat(keys, app_settings.load().registry, instance, Load())
    honest = record.encode(instance)
    assert honest in beat.args
    return dataclasses.replace(beat, args=tuple(raw if argument == honest else argument for argument in beat.args))


def put(server: Redis, operation: Operation[Any]) -> None:
    # It may take a while: Redis sends ten megabytes to everybody who watches.
    with server.client(socket_timeout=30) as client:
        client.eval(operations.source(operation.script), len(operation.keys), *operation.keys, *operation.args)
