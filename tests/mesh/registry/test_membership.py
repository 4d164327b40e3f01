"""Draining so that nobody is surprised, an operator's wishes, and leaving; over real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from app.mesh import Mesh
from app.mesh.keys import Keys
from app.mesh.registry import operations
from app.mesh.registry.change import Change
from app.mesh.registry.membership import Drained
from app.mesh.registry.operations import Position, Wish, WishedState
from app.mesh.registry.record import Instance, Load
from app.mesh.registry.runner import BlockingRegistry
from app.mesh.registry.view import Table
from app.settings import Settings
from tests.mesh.actors import Line, Witness, fast_settings, instance, mesh_of, redis_line, until


@pytest.fixture
async def line(redis_url: str) -> AsyncIterator[Line]:
    async with redis_line(redis_url) as made:
        yield made


def patient(namespace: str) -> Settings:
    """Neither the next heartbeat nor the next poll comes in time: only what is said at once is heard."""
    return fast_settings(namespace, registry={"poll_seconds": 600, "lease_seconds": 600, "heartbeat_seconds": 200})


class Ears:
    """Of a mesh that has just been opened: its watch may be made to bring nothing, until it is to hear again."""

    def __init__(self, mesh: Mesh) -> None:
        self._heard, self._hears, self._is_deaf = mesh.directory._watched.changes, True, False
        mesh.directory._watched.changes = self._changes  # type: ignore[method-assign]

    async def go_deaf(self) -> None:
        self._hears = False
        await until(lambda: self._is_deaf)

    def hear(self) -> None:
        self._hears = True

    async def _changes(self, after_seq: int, *, block_seconds: float) -> list[Change]:
        self._is_deaf = not self._hears
        if self._hears:
            return await self._heard(after_seq, block_seconds=min(block_seconds, 0.05))
        await asyncio.sleep(0.02)
        return []


def outcomes(witness: Witness) -> list[str]:
    return [decision.outcome for decision in witness.decisions if decision.kind == "drain"]


# ------------------------------------------------------------------------------------------ the acknowledged drain


async def test_a_drain_ends_when_every_caller_has_stopped_picking_the_instance(namespace: str, redis_url: str) -> None:
    settings, witness = patient(namespace), Witness()
    async with (
        mesh_of(settings, redis_url, "users", observer=witness) as users,
        mesh_of(settings, redis_url, "orders") as orders,
        mesh_of(settings, redis_url, "carts") as carts,
    ):
        for mesh in (users, orders, carts):
            await mesh.membership.register()
        await until(lambda: orders.directory.ready("users") and carts.directory.ready("users"))
        drained = await users.membership.drain(20)
        assert (drained.acknowledged, drained.waiting_for) == (True, ())
        assert not orders.directory.ready("users")
        assert not carts.directory.ready("users")
        assert outcomes(witness) == ["acknowledged"]


async def test_a_drain_waits_for_a_caller_that_has_not_heard_but_only_for_so_long(
    namespace: str, redis_url: str
) -> None:
    settings, witness = patient(namespace), Witness()
    async with (
        mesh_of(settings, redis_url, "users", observer=witness) as users,
        mesh_of(settings, redis_url, "orders") as orders,
    ):
        ears = Ears(orders)
        await users.membership.register()
        await orders.membership.register()
        await until(lambda: orders.directory.ready("users"))
        await ears.go_deaf()
        given_up = await users.membership.drain(0.3)
        assert given_up == Drained(False, (f"orders:{orders.instance.id}",), given_up.seconds)
        assert outcomes(witness)[-1] == "timed_out"
        waiting = asyncio.create_task(users.membership.drain(20))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        ears.hear()
        assert (await waiting).acknowledged


def follow(registry: BlockingRegistry, settings: Settings, who: Instance, seen: Position | None) -> None:
    """`who` has just sent a heartbeat in which its directory has come as far as `seen`."""
    keys = Keys(settings.registry.namespace)
    registry.run(operations.heartbeat(keys, settings.registry, who, Load(), seen))


async def test_nobody_waits_for_a_caller_whose_lease_is_over(
    namespace: str, redis_url: str, registry: BlockingRegistry, store: redis.Redis, keys: Keys
) -> None:
    settings = fast_settings(namespace, registry={"lease_seconds": 600})
    async with mesh_of(settings, redis_url, "users") as users:
        await users.membership.register()
        follow(registry, settings, instance("orders", "dead"), Position())
        at_once = await users.membership.drain(0.2)
        assert at_once.waiting_for == ("orders:dead",)
        store.zadd(keys.leases("orders"), {"dead": 1}, xx=True)
        drained = await users.membership.drain(20)
        assert drained.acknowledged


async def test_nobody_waits_for_a_member_that_has_no_directory(
    namespace: str, redis_url: str, registry: BlockingRegistry
) -> None:
    settings = patient(namespace)
    async with mesh_of(settings, redis_url, "users") as users:
        await users.membership.register()
        follow(registry, settings, instance("orders", "mute"), None)
        assert (await users.membership.drain(20)).acknowledged


async def test_two_drains_at_the_same_time_do_not_wait_for_each_other(namespace: str, redis_url: str) -> None:
    settings = patient(namespace)
    async with (
        mesh_of(settings, redis_url, "users") as one,
        mesh_of(settings, redis_url, "users") as two,
        mesh_of(settings, redis_url, "orders") as caller,
    ):
        for mesh in (one, two, caller):
            await mesh.membership.register()
        await until(lambda: len(caller.directory.ready("users")) == 2)
        drains = [mesh.membership.drain(20) for mesh in (one, two, one)]
        assert all(drained.acknowledged for drained in await asyncio.gather(*drains))
        assert not caller.directory.ready("users")


async def test_a_drain_survives_a_flush_of_the_registry(settings: Settings, redis_url: str, store: redis.Redis) -> None:
    keys = Keys(settings.registry.namespace)
    async with mesh_of(settings, redis_url, "users") as users, mesh_of(settings, redis_url, "orders") as orders:
        ears = Ears(orders)
        await users.membership.register()
        await orders.membership.register()
        await until(lambda: orders.directory.ready("users"))
        await ears.go_deaf()
        waiting = asyncio.create_task(users.membership.drain(20))
        await until(lambda: '"draining"' in str(store.hget(keys.records("users"), users.instance.id)))
        store.delete(*store.scan_iter(f"{keys.prefix}*"))
        ears.hear()
        assert (await waiting).acknowledged
        assert not orders.directory.ready("users")


async def test_a_drain_is_called_off_by_being_ready_again(
    namespace: str, redis_url: str, registry: BlockingRegistry
) -> None:
    settings, witness = patient(namespace), Witness()
    async with mesh_of(settings, redis_url, "users", observer=witness) as users:
        await users.membership.register()
        follow(registry, settings, instance("orders", "behind"), Position())
        waiting = asyncio.create_task(users.membership.drain(600))
        await until(lambda: users.instance.state == "draining")
        users.membership.set_state("ready")
        assert not (await waiting).acknowledged
        assert outcomes(witness) == ["called_off"]


async def test_while_redis_is_away_a_short_time_passes_instead(
    settings: Settings, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.mesh.registry.membership.NOTICE_SECONDS", 1.0)
    witness = Witness()
    async with mesh_of(settings, line.url, "users", observer=witness) as users:
        await users.membership.register()
        await line.cut()
        drained = await users.membership.drain(600)
        assert drained == Drained(False, (), drained.seconds)
        assert drained.seconds >= 1.0
        assert (await users.membership.drain(0.01)).seconds < 1.0
        assert outcomes(witness) == ["registry_away", "registry_away"]
        assert users.instance.state == "draining"


async def test_redis_that_goes_away_during_a_drain_does_not_hold_it_up(
    namespace: str, redis_url: str, line: Line, registry: BlockingRegistry
) -> None:
    settings, witness = patient(namespace), Witness()
    async with mesh_of(settings, line.url, "users", observer=witness) as users:
        await users.membership.register()
        follow(registry, settings, instance("orders", "behind"), Position())
        waiting = asyncio.create_task(users.membership.drain(600))
        await asyncio.sleep(0.1)
        await line.cut()
        assert not (await waiting).acknowledged
        assert outcomes(witness) == ["registry_away"]


async def test_who_is_not_registered_has_nobody_to_wait_for(settings: Settings, redis_url: str) -> None:
    async with mesh_of(settings, redis_url, "users") as users:
        assert await users.membership.drain(20) == Drained(True, (), 0.0)


async def test_a_change_counts_as_applied_only_when_whoever_listens_has_applied_it(
    namespace: str, redis_url: str, registry: BlockingRegistry
) -> None:
    settings = patient(namespace)
    async with mesh_of(settings, redis_url) as caller:
        when_told: list[Position] = []

        def listen(_: Table) -> None:
            when_told.append(caller.directory.position)

        caller.directory._listeners = (*caller.directory._listeners, listen)
        before = caller.directory.position
        follow(registry, settings, instance(), None)
        await until(lambda: caller.directory.instances("users"))
        assert when_told == [before]
        assert caller.directory.position.seq > before.seq


# ------------------------------------------------------------------------------------------ leaving


async def test_leaving_while_redis_is_away_ends_and_the_lease_does_the_rest(
    settings: Settings, redis_url: str, line: Line, store: redis.Redis
) -> None:
    keys = Keys(settings.registry.namespace)
    async with mesh_of(settings, redis_url, "orders") as other:
        await other.membership.register()
        async with mesh_of(settings, line.url, "users") as users:
            await users.membership.register()
            await until(lambda: other.directory.ready("users"))
            await line.cut()
            await users.membership.leave()
        await until(lambda: not store.exists(keys.records("users")) and not other.directory.instances("users"))


# ------------------------------------------------------------------------------------------ an operator's wishes


class Operator:
    """Wishes, from outside."""

    def __init__(self, registry: BlockingRegistry, settings: Settings) -> None:
        self.registry, self.settings = registry, settings
        self.keys = Keys(settings.registry.namespace)

    def wish(self, who: Instance, state: WishedState) -> str:
        return self.registry.run(operations.wish(self.keys, self.settings.registry, who.service, who.id, state)).outcome


async def test_a_wish_is_heard_at_once(namespace: str, redis_url: str, registry: BlockingRegistry) -> None:
    settings, witness, wished = patient(namespace), Witness(), list[str]()
    operator = Operator(registry, settings)
    async with (
        mesh_of(settings, redis_url, "users", observer=witness) as users,
        mesh_of(settings, redis_url, "users") as another,
    ):
        meant_for_another = list[str]()
        users.membership.on_wish(wished.append)
        another.membership.on_wish(meant_for_another.append)
        await users.membership.register()
        await another.membership.register()
        for state in ("draining", "ready", "draining"):
            assert operator.wish(users.instance, state) == "noted"
        await until(lambda: wished == ["draining", "ready", "draining"])
        assert meant_for_another == []
        assert outcomes(witness) == ["wish_draining", "wish_ready", "wish_draining"]


async def test_a_wish_that_the_watch_missed_comes_with_the_next_heartbeat_and_is_obeyed_once(
    settings: Settings, redis_url: str, registry: BlockingRegistry
) -> None:
    operator, wished = Operator(registry, settings), list[str]()
    async with mesh_of(settings, redis_url, "users") as users:
        ears = Ears(users)
        await users.membership.register()
        await ears.go_deaf()
        operator.wish(users.instance, "draining")
        operator.wish(users.instance, "ready")
        users.membership.on_wish(wished.append)
        await until(lambda: wished)
        beats = registry.run(operations.snapshot(operator.keys)).entries[0].load
        await until(lambda: registry.run(operations.snapshot(operator.keys)).entries[0].load != beats)
        assert wished == ["ready"]


async def test_who_listens_late_hears_the_last_wish(namespace: str, redis_url: str, registry: BlockingRegistry) -> None:
    settings, wished = patient(namespace), list[str]()
    async with mesh_of(settings, redis_url, "users") as users:
        await users.membership.register()
        Operator(registry, settings).wish(users.instance, "draining")
        await until(lambda: users.membership._wished)
        users.membership.on_wish(wished.append)
        assert wished == ["draining"]


async def test_a_wish_ends_with_the_generation_that_it_was_made_for(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis
) -> None:
    operator, wished = Operator(registry, settings), list[str]()
    follow(registry, settings, instance(), None)
    operator.wish(instance(), "draining")
    key = operator.keys.wish("users", "users-1")
    assert 0 < store.pttl(key) <= 2000 * settings.registry.lease_seconds
    async with mesh_of(settings, redis_url, "users", instance_id="users-1") as next_generation:
        next_generation.membership.on_wish(wished.append)
        await next_generation.membership.register()
        assert not store.exists(key)
        operator.wish(next_generation.instance, "draining")
        await until(lambda: wished == ["draining"])
        assert store.exists(key)
    assert not store.exists(key)


async def test_a_wish_for_an_earlier_generation_that_is_heard_of_late_is_not_obeyed(
    settings: Settings, redis_url: str
) -> None:
    wished = list[str]()
    async with mesh_of(settings, redis_url, "users") as users:
        users.membership.on_wish(wished.append)
        own = users.instance
        users.membership.wish_heard((own.service, own.id), Wish("m1", own.generation - 1, "draining"))
        assert wished == []
        users.membership.wish_heard((own.service, own.id), Wish("m1", own.generation, "draining"))
        assert wished == ["draining"]


def test_nothing_can_be_wished_of_nobody(settings: Settings, registry: BlockingRegistry, store: redis.Redis) -> None:
    operator = Operator(registry, settings)
    assert operator.wish(instance(), "draining") == "absent"
    assert list(store.scan_iter(f"{operator.keys.prefix}*")) == []
