"""The Lua scripts against a real Redis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.asyncio

from app import redis_client
from app.errors import Unavailable
from app.mesh.keys import Keys
from app.mesh.registry import operations, record
from app.mesh.registry.operations import Beat, Laggards, Leave, Position, Snapshot, Sweep
from app.mesh.registry.record import Instance, Load
from app.mesh.registry.rules import Rule
from app.mesh.registry.runner import BlockingRegistry, Registry
from app.settings import RegistrySettings
from tests.mesh.actors import instance

MS = 1000


class Town:
    """The verbs of the tests."""

    def __init__(self, registry: BlockingRegistry, keys: Keys, settings: RegistrySettings, store: redis.Redis) -> None:
        self.registry, self.keys, self.settings, self.store = registry, keys, settings, store

    def beat(self, who: Instance, load: Load = Load(), seen: Position | None = None) -> Beat:  # noqa: B008  # frozen
        return self.registry.run(operations.heartbeat(self.keys, self.settings, who, load, seen))

    def laggards(self, position: Position, *, but: tuple[str, str] = ("", "")) -> tuple[str, ...]:
        answer = self.registry.run(
            operations.laggards(self.keys, position.epoch, position.seq, mark=position.mark, but=but)
        )
        assert answer.known
        return answer.names

    def leave(self, who: Instance) -> Leave:
        return self.registry.run(operations.deregister(self.keys, self.settings, who))

    def sweep(self, apart_seconds: float = 0) -> Sweep:
        return self.registry.run(operations.sweep(self.keys, self.settings, apart_seconds=apart_seconds))

    def look(self) -> Snapshot:
        return self.registry.run(operations.snapshot(self.keys))

    def ids(self) -> list[str]:
        return sorted(entry.id for entry in self.look().entries)

    def expire(self, *who: Instance) -> None:
        """Their leases have ended, as if they had stopped beating a while ago."""
        for one in who:
            self.store.zadd(self.keys.leases(one.service), {one.id: 1})

    def last_beat(self, seconds_ago: float) -> None:
        self.store.hset(self.keys.head, "beat_ms", self.look().now_ms - int(seconds_ago * MS))

    def log(self) -> list[tuple[str, dict[str, str]]]:
        entries: list[tuple[str, dict[str, str]]] = self.store.xrange(self.keys.log)  # type: ignore[assignment]
        return entries


@pytest.fixture
def town(registry: BlockingRegistry, keys: Keys, registry_settings: RegistrySettings, store: redis.Redis) -> Town:
    return Town(registry, keys, registry_settings, store)


def test_a_heartbeat_makes_an_instance_known(town: Town) -> None:
    who = instance()
    assert town.beat(who).outcome == "changed"
    (entry,) = town.look().entries
    assert record.decode(entry.record, town.settings.allowed_networks) == who
    assert entry.lease_end_ms - town.look().now_ms <= town.settings.lease_seconds * MS


def test_a_repeated_heartbeat_moves_neither_seq_nor_log(town: Town) -> None:
    first = town.beat(instance())
    again = town.beat(instance(), Load(in_flight=7, loop_lag_seconds=0.5))
    assert (again.outcome, again.position) == ("same", first.position)
    assert len(town.log()) == 1


def test_load_figures_travel_with_every_heartbeat(town: Town) -> None:
    town.beat(instance())
    town.beat(instance(), Load(in_flight=7))
    (entry,) = town.look().entries
    beat_ms, load = record.decode_load(entry.load)
    assert load == Load(in_flight=7)
    assert 0 <= town.look().now_ms - beat_ms < 60 * MS


@pytest.mark.parametrize("change", [{"state": "draining"}, {"weight": 0.5}, {"generation": 2}, {"version": "2"}])
def test_every_real_change_moves_seq_by_one_and_is_logged(town: Town, change: dict[str, Any]) -> None:
    first = town.beat(instance())
    second = town.beat(instance(**change))
    assert second.outcome == "changed"
    assert second.position.seq == first.position.seq + 1
    key, fields = town.log()[-1]
    assert key == f"{second.position.seq}-0"
    assert (fields["op"], fields["prev"], fields["mark"]) == ("up", first.position.mark, second.position.mark)


def test_a_lower_generation_is_refused_and_changes_nothing(town: Town) -> None:
    new = instance(generation=2, version="new")
    town.beat(new)
    before = town.look()
    assert town.beat(instance(generation=1, version="old")).outcome == "refused"
    assert town.leave(instance(generation=1)).outcome == "refused"
    after = town.look()
    assert (after.position, after.entries) == (before.position, before.entries)


def test_a_higher_generation_takes_over(town: Town) -> None:
    town.beat(instance(generation=1))
    assert town.beat(instance(generation=2)).outcome == "changed"
    assert town.beat(instance(generation=1)).outcome == "refused"


def test_a_heartbeat_that_arrives_after_the_leave_does_not_bring_the_instance_back(town: Town) -> None:
    town.beat(instance())
    assert town.leave(instance()).outcome == "left"
    assert town.beat(instance()).outcome == "refused"
    assert town.ids() == []
    assert town.beat(instance(generation=2)).outcome == "changed"


def test_a_leave_is_logged_once(town: Town) -> None:
    town.beat(instance())
    left = town.leave(instance())
    assert town.leave(instance()).outcome == "absent"
    assert town.look().position == left.position
    assert [fields["op"] for _, fields in town.log()] == ["up", "left"]
    assert not town.store.exists(town.keys.services)


def test_one_heartbeat_heals_a_flushed_registry_in_a_new_epoch_beyond_the_old_seq(town: Town) -> None:
    old = town.beat(instance()).position
    town.store.delete(*town.store.scan_iter(f"{town.keys.prefix}*"))
    healed = town.beat(instance())
    assert healed.outcome == "changed"
    assert town.ids() == ["users-1"]
    assert healed.position.epoch != old.epoch
    assert healed.position.seq > old.seq


@pytest.mark.parametrize("lost", ["head", "log", "services", "svc:users", "exp:users", "load:users"])
def test_a_key_that_is_lost_alone_is_healed_by_a_heartbeat(town: Town, lost: str) -> None:
    town.beat(instance())
    town.store.delete(f"{town.keys.prefix}{lost}")
    town.beat(instance())
    assert town.ids() == ["users-1"]
    town.last_beat(0)
    assert town.sweep().removed == ()
    assert town.store.zcard(town.keys.leases("users")) == 1


def test_the_log_is_bounded(town: Town) -> None:
    town.settings = town.settings.model_copy(update={"log_length": 50})
    for weight in range(400):
        town.beat(instance(weight=weight))
    # Redis trims whole nodes of a hundred entries.
    assert len(town.log()) <= 50 + 100


def test_every_key_has_a_ttl(town: Town) -> None:
    other = instance("orders", "orders-1")
    town.beat(instance())
    town.beat(other, seen=Position())
    town.registry.run(operations.wish(town.keys, town.settings, "users", "users-1", "draining"))
    town.registry.run(operations.put_rule(town.keys, town.settings, Rule("users", 0, weights=(("a", 1.0),))))
    town.leave(other)
    town.expire(instance())
    town.sweep()
    town.beat(instance(), seen=Position())
    town.registry.run(operations.wish(town.keys, town.settings, "users", "users-1", "draining"))
    names = set(town.store.scan_iter(f"{town.keys.prefix}*"))
    assert len(names) == 10
    assert all(town.store.ttl(name) > 0 for name in names)


def test_a_leave_in_an_empty_registry_leaves_no_unbounded_key(town: Town) -> None:
    assert town.leave(instance()).outcome == "absent"


# ------------------------------------------------------------------------------------------ who has seen what


def test_laggards_are_who_has_not_applied_a_change_and_is_alive_and_has_a_directory(town: Town) -> None:
    before = town.beat(instance("orders", "mute")).position
    town.beat(instance("orders", "behind"), seen=before)
    change = town.beat(instance(state="draining"), seen=before).position
    town.beat(instance("orders", "abreast"), seen=change)
    assert town.laggards(change, but=("users", "users-1")) == ("orders:behind",)
    assert set(town.laggards(change)) == {"orders:behind", "users:users-1"}
    assert town.laggards(before) == ()
    town.beat(instance("orders", "behind"), seen=change)
    assert town.laggards(change, but=("users", "users-1")) == ()


def test_nobody_waits_for_who_has_left_or_is_dead(town: Town) -> None:
    late, gone = instance("orders", "late"), instance("orders", "gone")
    change = town.beat(instance()).position
    town.beat(late, seen=Position())
    town.beat(gone, seen=Position())
    town.leave(gone)
    assert town.laggards(change) == ("orders:late",)
    town.expire(late)
    assert town.laggards(change) == ()
    town.sweep()
    assert not town.store.exists(town.keys.seen)


def test_what_was_applied_of_another_history_counts_as_nothing(town: Town) -> None:
    first = town.beat(instance("orders", "o")).position
    second = town.beat(instance()).position
    for seen in (
        replace(second, epoch="of before a flush"),
        replace(second, mark="of another past"),
        replace(first, mark="of another past"),
        replace(second, seq=second.seq + 5),
        Position(),
    ):
        town.beat(instance("orders", "o"), seen=seen)
        assert town.store.zscore(town.keys.seen, "orders:o") == 0
    for seen in (first, second):
        town.beat(instance("orders", "o"), seen=seen)
        assert town.store.zscore(town.keys.seen, "orders:o") == seen.seq


def test_what_has_been_trimmed_from_the_log_is_believed_since_it_is_long_past(town: Town) -> None:
    first = town.beat(instance("orders", "o")).position
    town.beat(instance())
    town.store.xtrim(town.keys.log, maxlen=1, approximate=False)
    town.beat(instance("orders", "o"), seen=first)
    assert town.store.zscore(town.keys.seen, "orders:o") == first.seq


def test_of_many_laggards_a_few_are_named_also_behind_pages_of_dead_ones(town: Town) -> None:
    change = town.beat(instance()).position
    town.store.zadd(town.keys.seen, {f"orders:dead-{n:04}": 1 for n in range(1200)})
    for n in range(25):
        town.beat(instance("users", f"late-{n}"), seen=Position())
    town.store.zadd(town.keys.seen, {f"users:late-{n}": 2 for n in range(25)})
    names = town.laggards(change)
    assert len(names) == 20
    assert all(name.startswith("users:late-") for name in names)
    # Of whom no record is left, the next sweep forgets.
    town.sweep()
    assert town.store.zcard(town.keys.seen) == 25


def test_of_a_change_in_another_history_nobody_is_named(town: Town) -> None:
    first = town.beat(instance(), seen=Position()).position
    last = town.beat(instance(weight=2), seen=Position()).position

    def ask(at: Position) -> Laggards:
        return town.registry.run(operations.laggards(town.keys, at.epoch, at.seq, mark=at.mark))

    for other in (
        replace(last, epoch="another"),
        replace(last, seq=last.seq + 1),
        replace(last, mark="another"),
        replace(first, mark="another"),
    ):
        assert ask(other) == Laggards(known=False, names=())
    for own in (last, replace(last, mark=""), first):
        assert ask(own) == Laggards(known=True, names=("users:users-1",))
    town.store.delete(*town.store.scan_iter(f"{town.keys.prefix}*"))
    assert not ask(last).known


def test_heartbeats_say_when_a_sweep_is_due_so_that_few_of_them_sweep(town: Town) -> None:
    assert town.beat(instance()).sweep_due
    town.sweep()
    assert not town.beat(instance()).sweep_due
    town.store.hset(town.keys.head, "swept_ms", town.look().now_ms - int(town.settings.lease_seconds * MS / 3) - 1)
    assert town.beat(instance()).sweep_due


# ------------------------------------------------------------------------------------------ sweep


def test_a_sweep_takes_out_only_whose_lease_has_ended(town: Town) -> None:
    dead, alive = instance(id="dead"), instance(id="alive")
    town.beat(dead)
    town.beat(alive)
    town.expire(dead)
    swept = town.sweep()
    assert (swept.outcome, swept.removed) == ("swept", (("users", "dead"),))
    assert town.ids() == ["alive"]
    assert town.log()[-1][1]["op"] == "expired"
    assert not town.store.hexists(town.keys.loads("users"), "dead")


def test_who_was_swept_comes_back_with_the_same_generation(town: Town) -> None:
    town.beat(instance())
    town.beat(instance(id="other"))
    town.expire(instance())
    town.sweep()
    assert town.beat(instance()).outcome == "changed"


def test_a_sweep_takes_at_most_15_percent_of_a_service_and_at_least_one(town: Town) -> None:
    many = [instance(id=f"users-{n}") for n in range(20)]
    few = [instance("orders", f"orders-{n}") for n in range(3)]
    for one in (*many, *few):
        town.beat(one)
    town.expire(*many, *few)
    services = [service for service, _ in town.sweep().removed]
    assert (services.count("users"), services.count("orders")) == (3, 1)


def test_sweeps_close_to_one_another_do_nothing_so_that_a_large_fleet_keeps_the_bound(town: Town) -> None:
    many = [instance(id=f"users-{n}") for n in range(20)]
    for one in many:
        town.beat(one)
    town.expire(*many)
    assert len(town.sweep(apart_seconds=60).removed) == 3
    assert town.sweep(apart_seconds=60) == Sweep("early", ())


@pytest.mark.parametrize("seconds_ago", [0.6, 3600, -0.6, -3600])
def test_after_an_absence_of_redis_or_a_jump_of_its_clock_every_lease_is_extended(
    town: Town, seconds_ago: float
) -> None:
    everyone = [instance(id=f"users-{n}") for n in range(3)]
    for one in everyone:
        town.beat(one)
    town.expire(*everyone)
    town.last_beat(seconds_ago)
    assert town.sweep() == Sweep("held", ())
    assert all(entry.lease_end_ms > town.look().now_ms for entry in town.look().entries)
    assert town.sweep() == Sweep("swept", ())


def test_the_first_heartbeat_after_an_absence_extends_the_leases_of_the_others(town: Town) -> None:
    town.beat(instance(id="slow"))
    town.beat(instance(id="quick"))
    town.expire(instance(id="slow"))
    town.last_beat(60)
    town.beat(instance(id="quick"))
    assert town.sweep().removed == ()
    assert town.ids() == ["quick", "slow"]


def test_a_sweep_of_an_empty_registry_creates_nothing(town: Town) -> None:
    assert town.sweep().outcome == "empty"
    assert list(town.store.scan_iter(f"{town.keys.prefix}*")) == []


# ------------------------------------------------------------------------------------------ reading


def test_a_snapshot_of_nothing_has_no_epoch(town: Town) -> None:
    assert (town.look().position, town.look().entries) == (Position(), ())


def test_a_record_of_ten_megabytes_does_not_travel(town: Town) -> None:
    town.beat(instance())
    town.store.hset(town.keys.records("users"), "fat", "x" * 10_000_000)
    fat = next(entry for entry in town.look().entries if entry.id == "fat")
    assert fat.record == b""


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_async_side_reads_what_the_blocking_side_wrote(
    town: Town, redis_url: str, protocol: int, decode: bool
) -> None:
    beat = town.beat(instance())
    async with redis.asyncio.Redis.from_url(redis_url, protocol=protocol, decode_responses=decode) as client:
        reader = Registry(client, town.keys)
        assert await reader.position() == beat.position
        assert (await reader.run(operations.snapshot(town.keys))).entries == town.look().entries
        assert [(e.id, e.record, e.load) for e in (await reader.snapshot()).entries] == [
            (e.id, e.record, b"") for e in town.look().entries
        ]


async def test_the_log_is_read_from_where_one_stands(town: Town, redis_url: str) -> None:
    first = town.beat(instance()).position
    second = town.leave(instance()).position
    client = redis_client.open_watch(redis_url, block_seconds=1)
    reader = Registry(client, town.keys)
    (change,) = await reader.changes(first.seq, block_seconds=1)
    assert (change.position, change.prev, change.op) == (second, first.mark, "left")
    assert await reader.changes(second.seq, block_seconds=0.01) == []
    await client.aclose()


def test_scripts_are_loaded_again_after_redis_has_forgotten_them(private_redis: object, town: Town) -> None:
    url = private_redis.url  # type: ignore[attr-defined]
    own = BlockingRegistry(url)
    beat = operations.heartbeat(town.keys, town.settings, instance(), Load())
    assert own.run(beat).outcome == "changed"
    with redis.Redis.from_url(url) as client:
        client.script_flush()
    assert own.run(beat).outcome == "same"
    own.close()


async def test_a_registry_that_is_away_is_unavailable_and_not_a_redis_error(
    keys: Keys, registry_settings: RegistrySettings
) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    blocking = BlockingRegistry(nowhere)
    with pytest.raises(Unavailable):
        blocking.run(operations.snapshot(keys))
    client = redis_client.open_watch(nowhere, block_seconds=1)
    reader = Registry(client, keys)
    for ask in (reader.snapshot, reader.position, lambda: reader.changes(0, block_seconds=1)):
        with pytest.raises(Unavailable):
            await ask()
    await client.aclose()


def test_two_services_do_not_touch_each_other(town: Town) -> None:
    town.beat(instance("users", "one"))
    town.beat(instance("orders", "one"))
    town.leave(instance("users", "one"))
    assert [entry.service for entry in town.look().entries] == ["orders"]


def test_the_generation_is_compared_as_a_number(town: Town) -> None:
    town.beat(replace(instance(), generation=9))
    assert town.beat(replace(instance(), generation=1_763_707_000_000)).outcome == "changed"
    assert town.beat(replace(instance(), generation=10)).outcome == "refused"


def test_a_sweep_mends_what_does_not_fit_together(town: Town) -> None:
    """Keys that were lost alone: a record without a lease would stay for ever, the rest would only pile up."""
    for id_ in ("a", "b"):
        town.beat(instance(id=id_))
    town.store.delete(town.keys.leases("users"))
    assert town.sweep().removed == ()
    assert town.store.zcard(town.keys.leases("users")) == 2
    town.store.hdel(town.keys.records("users"), "b")
    assert town.sweep().removed == ()
    assert town.store.zrange(town.keys.leases("users"), 0, -1) == ["a"]
    assert town.store.hkeys(town.keys.loads("users")) == ["a"]
    assert town.ids() == ["a"]
