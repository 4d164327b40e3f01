"""Presence and directory together, over a real Redis that is cut, flushed and poisoned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import redis
import redis.asyncio
import structlog

from app.dev import redis as embedded_redis
from app.errors import NoInstance
from app.mesh import Mesh
from app.mesh.keys import Keys
from app.mesh.registry import record
from app.mesh.registry.change import Change
from app.mesh.registry.directory import cancelled
from app.mesh.registry.runner import BlockingRegistry
from app.settings import Settings
from tests.mesh.actors import Line, Witness, beat, fast_settings, instance, mesh_of, redis_line, until


@pytest.fixture
async def line(redis_url: str) -> AsyncIterator[Line]:
    async with redis_line(redis_url) as made:
        yield made


def unpolled(namespace: str) -> Settings:
    """Only the watch brings news."""
    return fast_settings(namespace, registry={"poll_seconds": 600, "lease_seconds": 600, "heartbeat_seconds": 200})


def ids(mesh: Mesh, service: str = "users") -> list[str]:
    return [peer.id for peer in mesh.directory.instances(service)]


# ------------------------------------------------------------------------------------------ coming and going


async def test_nobody_is_announced_before_it_registers(settings: Settings, redis_url: str) -> None:
    async with mesh_of(settings, redis_url, "users") as users, mesh_of(settings, redis_url) as caller:
        before = users.instance
        await users.membership.register()
        await until(lambda: ids(caller))
        assert (before.state, users.instance.state) == ("starting", "ready")
        assert [peer.state for peer in caller.directory.instances("users")] == ["ready"]


async def test_a_registration_a_drain_and_a_leave_reach_the_others_by_the_watch(
    namespace: str, redis_url: str, registry: BlockingRegistry
) -> None:
    slow_poll = unpolled(namespace)
    beat(registry, slow_poll, instance("orders", "orders-1"))
    witness = Witness()
    async with mesh_of(slow_poll, redis_url, observer=witness) as caller:
        witness.changes.clear()
        async with mesh_of(slow_poll, redis_url, "users", prefixes=["/users"], version="1.2") as users:
            await users.membership.register()
            await until(lambda: caller.directory.ready("users"))
            (peer,) = caller.directory.ready("users")
            assert (peer.version, peer.prefixes, peer.id) == ("1.2", ("/users",), users.instance.id)
            assert caller.directory.services() == ("orders", "users")
            assert caller.directory.route("/users/7") == "users"
            users.membership.set_state("draining")
            await until(lambda: not caller.directory.ready("users"))
            assert ids(caller) == [users.instance.id]
        await until(lambda: not ids(caller))
        assert caller.directory.route("/users/7") == "users"
        assert {change.source for change in witness.changes} == {"watch"}


async def test_heartbeats_keep_an_instance_and_move_nothing(
    settings: Settings, redis_url: str, store: redis.Redis
) -> None:
    async with mesh_of(settings, redis_url, "users") as users:
        await users.membership.register()
        await until(lambda: ids(users))
        position = users.directory.position
        leases, now_ms = Keys(settings.registry.namespace).leases("users"), time.time() * 1000
        await until(
            lambda: (store.zscore(leases, users.instance.id) or 0) > now_ms + 2000 * settings.registry.lease_seconds
        )
        assert users.directory.position == position
        assert ids(users) == [users.instance.id]


async def test_heartbeats_go_on_while_the_loop_stands_still_and_then_say_so(
    settings: Settings, redis_url: str, store: redis.Redis
) -> None:
    async with mesh_of(settings, redis_url, "users") as users, mesh_of(settings, redis_url) as caller:
        await users.membership.register()
        await until(lambda: ids(caller))
        time.sleep(2.5 * settings.registry.lease_seconds)  # noqa: ASYNC251  # the subject
        records = store.hgetall(Keys(settings.registry.namespace).records("users"))
        assert "forced-out" in records[users.instance.id]
        await until(lambda: caller.directory.ready("users"))


async def test_an_instance_that_dies_without_a_word_is_swept(
    settings: Settings, redis_url: str, registry: BlockingRegistry
) -> None:
    beat(registry, settings, instance(id="dead"))
    async with mesh_of(settings, redis_url, "orders") as other:
        assert ids(other) == ["dead"]
        await other.membership.register()
        await until(lambda: not ids(other))


async def test_registering_and_leaving_twice_is_as_once(settings: Settings, redis_url: str) -> None:
    async with mesh_of(settings, redis_url, "users") as users:
        await asyncio.gather(users.membership.register(), users.membership.register())
        await until(lambda: ids(users))
        await users.membership.leave()
        await users.membership.leave()
        await until(lambda: not ids(users))


# ------------------------------------------------------------------------------------------ never lost


async def test_what_the_watch_missed_is_found_by_the_poll(
    settings: Settings, redis_url: str, registry: BlockingRegistry
) -> None:
    async with mesh_of(settings, redis_url) as caller:

        async def deaf(after_seq: int, *, block_seconds: float) -> list[Change]:
            await asyncio.sleep(min(block_seconds, 0.05))
            return []

        caller.directory._watched.changes = deaf  # type: ignore[method-assign]
        beat(registry, settings, instance())
        await until(lambda: ids(caller) == ["users-1"])


async def test_a_gap_in_the_log_is_filled_by_a_snapshot(
    namespace: str, redis_url: str, registry: BlockingRegistry, store: redis.Redis
) -> None:
    settings, keys = unpolled(namespace), Keys(namespace)
    beat(registry, settings, instance(id="zero"))
    async with mesh_of(settings, redis_url) as caller:
        await until(lambda: caller.directory._next_poll)
        # One change vanishes from the log before anybody can read it; the next one shows the gap.
        with store.pipeline(transaction=True) as both:
            who, head = instance(id="one"), caller.directory.position
            both.hset(keys.records("users"), "one", record.encode(who))
            both.hset(keys.head, mapping={"seq": head.seq + 1, "mark": "unseen"})
            both.execute()
        beat(registry, settings, instance(id="two"))
        await until(lambda: ids(caller) == ["one", "two", "zero"])


async def test_another_past_that_has_counted_further_is_noticed(
    namespace: str, redis_url: str, registry: BlockingRegistry, store: redis.Redis
) -> None:
    """A stale replica is promoted, and changes before the watcher sees it: the seq fits, the history does not."""
    settings, keys = unpolled(namespace), Keys(namespace)
    beat(registry, settings, instance(id="zero"))
    async with mesh_of(settings, redis_url) as caller:
        await until(lambda: caller.directory._next_poll)
        with store.pipeline(transaction=True) as both:
            both.hset(keys.records("users"), "unseen", record.encode(instance(id="unseen")))
            both.hset(keys.head, "mark", "of-another-past")
            both.execute()
        beat(registry, settings, instance(id="two"))
        await until(lambda: ids(caller) == ["two", "unseen", "zero"])


async def test_a_flushed_registry_loses_nobody_and_heals_in_a_new_epoch(
    settings: Settings, redis_url: str, store: redis.Redis
) -> None:
    async with AsyncExitStack() as stack:
        users = [await stack.enter_async_context(mesh_of(settings, redis_url, "users")) for _ in range(3)]
        caller = await stack.enter_async_context(mesh_of(settings, redis_url))
        for one in users:
            await one.membership.register()
        everyone = sorted(one.instance.id for one in users)
        await until(lambda: ids(caller) == everyone)
        epoch = caller.directory.position.epoch
        fewest = 3
        store.delete(*store.scan_iter(f"{Keys(settings.registry.namespace).prefix}*"))
        end = time.monotonic() + 2 * settings.registry.lease_seconds
        while time.monotonic() < end:
            fewest = min(fewest, len(ids(caller)))
            await asyncio.sleep(0.002)
        await until(lambda: caller.directory.position.epoch != epoch and "0 suspect" in repr(caller.directory))
        assert min(fewest, len(ids(caller))) == 3


async def test_who_does_not_come_back_after_a_flush_is_dropped_after_the_grace(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis
) -> None:
    beat(registry, settings, instance(id="ghost"))
    witness = Witness()
    async with mesh_of(settings, redis_url, observer=witness) as caller:
        assert ids(caller) == ["ghost"]
        emptied = time.monotonic()
        store.delete(*store.scan_iter(f"{Keys(settings.registry.namespace).prefix}*"))
        await until(lambda: not ids(caller))
        assert time.monotonic() - emptied >= settings.registry.lease_seconds
        assert witness.changes[-1].source == "grace"


# ------------------------------------------------------------------------------------------ Redis away


async def test_while_redis_is_away_the_last_known_peers_are_served_and_then_the_news(
    settings: Settings, redis_url: str, line: Line, registry: BlockingRegistry
) -> None:
    witness = Witness()
    async with mesh_of(settings, redis_url, "users") as users, mesh_of(settings, line.url, observer=witness) as caller:
        await users.membership.register()
        await until(lambda: ids(caller))
        await line.cut()
        await until(lambda: not caller.directory.healthy)
        beat(registry, settings, instance(id="meanwhile"))
        end = time.monotonic() + 2 * settings.registry.lease_seconds
        while time.monotonic() < end:
            assert ids(caller) == [users.instance.id]
            await asyncio.sleep(0.01)
        await line.mend()

        def is_heard_of() -> bool:
            # Again and again: its lease is short, and the caller may be a while in coming back.
            beat(registry, settings, instance(id="meanwhile"))
            return "meanwhile" in ids(caller)

        await until(is_heard_of)
        assert [contact.healthy for contact in witness.contacts if contact.room == "directory"][:3] == [
            True,
            False,
            True,
        ]


async def test_a_process_that_starts_while_redis_is_away_opens_empty(settings: Settings) -> None:
    async with mesh_of(settings, "redis://127.0.0.1:1/0", "users") as users:
        assert users.directory.services() == ()
        with pytest.raises(NoInstance) as raised:
            await users.get("orders", "/")
        assert raised.value.retry_after
        await users.membership.register()
        assert "registry away" in repr(users)


async def test_a_process_that_starts_while_redis_is_away_serves_from_its_copy_on_disk(
    settings: Settings, redis_url: str, line: Line, tmp_path: Path
) -> None:
    copy = tmp_path / "directory.json"
    async with mesh_of(settings, redis_url, "users", prefixes=["/users"]) as users:
        await users.membership.register()
        async with mesh_of(settings, redis_url, cache_file=copy) as caller:
            await until(lambda: ids(caller))
        await line.cut()
        async with mesh_of(settings, line.url, cache_file=copy) as restarted:
            assert ids(restarted) == [users.instance.id]
            assert restarted.directory.route("/users/7") == "users"
            await line.mend()
            await until(lambda: "0 suspect" in repr(restarted.directory) and restarted.directory.healthy)
            assert ids(restarted) == [users.instance.id]


async def test_who_is_only_on_disk_is_dropped_once_redis_has_been_healthy_for_the_grace(
    settings: Settings, line: Line, redis_url: str, tmp_path: Path, registry: BlockingRegistry, store: redis.Redis
) -> None:
    copy = tmp_path / "directory.json"
    beat(registry, settings, instance(id="ghost"))
    async with mesh_of(settings, redis_url, cache_file=copy):
        await until(copy.exists)
    store.delete(*store.scan_iter(f"{Keys(settings.registry.namespace).prefix}*"))
    await line.cut()
    async with mesh_of(settings, line.url, cache_file=copy) as restarted:
        assert ids(restarted) == ["ghost"]
        await line.mend()
        await until(lambda: not ids(restarted))


async def test_registration_begins_as_soon_as_redis_is_there(settings: Settings, redis_url: str, line: Line) -> None:
    async with mesh_of(settings, redis_url) as caller:
        await line.cut()
        async with mesh_of(settings, line.url, "users") as users:
            await users.membership.register()
            await line.mend()
            await until(lambda: ids(caller) == [users.instance.id])


async def test_a_redis_that_is_restarted_empty_is_filled_again(
    private_redis: embedded_redis.Server, namespace: str
) -> None:
    settings = fast_settings(namespace)
    async with mesh_of(settings, private_redis.url, "users") as users, mesh_of(settings, private_redis.url) as caller:
        await users.membership.register()
        await until(lambda: ids(caller))
        epoch = caller.directory.position.epoch
        await asyncio.to_thread(private_redis.stop)
        await until(lambda: not caller.directory.healthy)
        await asyncio.to_thread(private_redis.start)
        await until(
            lambda: caller.directory.position.epoch not in {"", epoch} and "0 suspect" in repr(caller.directory)
        )
        assert ids(caller) == [users.instance.id]
        with closing(redis.Redis.from_url(private_redis.url)) as client:
            assert client.hlen(Keys(namespace).records("users")) == 1


async def test_a_hung_redis_delays_neither_look_ups_nor_the_end(
    private_redis: embedded_redis.Server, namespace: str
) -> None:
    settings = fast_settings(namespace)
    async with mesh_of(settings, private_redis.url, "users") as users:
        await users.membership.register()
        await until(lambda: ids(users))
        with closing(redis.Redis.from_url(private_redis.url)) as client:
            client.client_pause(60_000, all=True)
            pause_ends = time.monotonic() + 60
        await until(lambda: not users.directory.healthy)
        assert ids(users) == [users.instance.id]
    assert time.monotonic() < pause_ends, "closed while Redis was still hung"


# ------------------------------------------------------------------------------------------ poison


@pytest.mark.parametrize(
    "poison",
    ["", "{", "1 {}", "x" * 100_000, record.encode(instance(id="evil", url="http://169.254.169.254:80")).decode(),
     record.encode(instance("orders", "evil")).decode(), record.encode(instance(id="another")).decode()],
    ids=["empty", "broken", "bare", "long", "outside the networks", "of another service", "of another instance"],
)  # fmt: skip
async def test_a_poisoned_record_changes_nothing_but_a_warning(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis, poison: str
) -> None:
    keys = Keys(settings.registry.namespace)
    beat(registry, settings, instance())
    store.hset(keys.records("users"), "evil", poison)
    with structlog.testing.capture_logs() as logs:
        async with mesh_of(settings, redis_url) as caller:
            assert ids(caller) == ["users-1"]
            await caller.directory._take_snapshot()
    assert [line["event"] for line in logs] == ["poisoned record ignored"]


async def test_a_poisoned_change_in_the_log_changes_nothing_but_a_warning(
    settings: Settings, redis_url: str, registry: BlockingRegistry
) -> None:
    beat(registry, settings, instance())
    with structlog.testing.capture_logs() as logs:
        async with mesh_of(settings, redis_url) as caller:
            # Who may write to Redis may also run the script; the record is what must not be believed.
            beat(registry, settings, instance(id="evil", url="http://169.254.169.254:80"))
            beat(registry, settings, instance(id="honest"))
            await until(lambda: ids(caller) == ["honest", "users-1"])
    assert [line["event"] for line in logs] == ["poisoned record ignored"]


async def test_rubbish_in_the_log_is_got_over(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis
) -> None:
    beat(registry, settings, instance())
    async with mesh_of(settings, redis_url) as caller:
        store.xadd(Keys(settings.registry.namespace).log, {"rub": "bish"}, id=f"{caller.directory.position.seq}-7")
        beat(registry, settings, instance(id="honest"))
        await until(lambda: ids(caller) == ["honest", "users-1"])


# ------------------------------------------------------------------------------------------ the end


async def test_the_end_comes_although_a_cancellation_is_lost_on_the_way() -> None:
    """As it happens in `asyncio.wait_for` on Python 3.11, under every command that redis-py sends."""
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await cancelled([task])
    assert task.cancelled()


async def test_opening_and_closing_many_times_leaves_nothing_behind(settings: Settings, redis_url: str) -> None:
    before = asyncio.all_tasks()
    for _ in range(25):
        async with mesh_of(settings, redis_url, "users") as users:
            await users.membership.register()
    assert asyncio.all_tasks() == before
    async with mesh_of(settings, redis_url) as caller:
        assert ids(caller) == []
