from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
import redis

from app import context
from app.dev.redis import Server
from app.errors import LeaseLost, NotAcquired, Unavailable
from app.mesh.coordination import Coordination, Line, open_line
from app.mesh.coordination.lease import Held, Lease
from app.mesh.keys import Keys
from tests.mesh import actors
from tests.mesh.actors import Witness, until
from tests.mesh.coordination.crew import hired

WORKER = "tests.mesh.coordination.worker"


async def locked(
    coordination: Coordination,
    *,
    ttl: float = 0.3,
    wait: float = 5,
    inside: Callable[[], Awaitable[object]] | None = None,
    tokens: list[Held] | None = None,
) -> None:
    """Hold the lock; with something to do `inside`, until it is lost."""
    async with coordination.lock("one", ttl=ttl, wait=wait) as held:
        if tokens is not None:
            tokens.append(held)
        if inside is not None:
            await inside()
            await asyncio.sleep(20)
            pytest.fail("the block was not cancelled")


async def test_one_at_a_time_and_each_with_a_larger_token(coordination: Coordination, witness: Witness) -> None:
    inside, tokens = 0, []

    async def work() -> None:
        nonlocal inside
        async with coordination.lock("invoice:7", wait=30) as held:
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.001)
            inside -= 1
            tokens.append(held.token)

    await asyncio.gather(*(work() for _ in range(20)))
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 20
    told = [(decision.kind, decision.service, decision.outcome) for decision in witness.decisions]
    assert told == [("lock", "invoice", "acquired")] * 20


async def test_who_does_not_get_it_in_time_is_told_so(coordination: Coordination, witness: Witness) -> None:
    async with coordination.lock("one", ttl=30):
        for wait in (0, 0.05):
            with pytest.raises(NotAcquired) as caught:
                await locked(coordination, wait=wait)
            assert caught.value.retry_after
    await locked(coordination, wait=0)
    assert [decision.outcome for decision in witness.decisions].count("not_acquired") == 2


async def test_waiting_ends_with_the_request(coordination: Coordination) -> None:
    async with coordination.lock("one", ttl=30):
        with context.activate(context.Context("r1", deadline=time.monotonic() + 0.05)), pytest.raises(NotAcquired):
            await asyncio.wait_for(locked(coordination, wait=60), 10)


async def test_it_is_renewed_for_as_long_as_the_block_runs(
    coordination: Coordination, store: redis.Redis, keys: Keys
) -> None:
    async with coordination.lock("one", ttl=1.5) as held:
        until_at = held.expires_at
        await until(lambda: held.expires_at > until_at + 1.5)
        held.check()
        assert store.exists(keys.lock("one"))
    assert not store.exists(keys.lock("one"))


async def test_tokens_grow_over_expiry_and_over_a_flush(line: Line, store: redis.Redis, keys: Keys) -> None:
    tokens = []
    for forget in ((), (keys.lock("one"),), (keys.lock("one"), keys.fence("one"))):
        for key in forget:
            store.delete(key)
        held = await Lease("one", ttl_seconds=30, line=line, keys=keys).acquire()
        assert isinstance(held, Held)
        tokens.append(held.token)
        store.delete(keys.lock("one"))
    # A clock that was set back: the last token is remembered.
    store.set(keys.fence("one"), tokens[-1] + 10**12, px=60_000)
    held = await Lease("one", ttl_seconds=30, line=line, keys=keys).acquire()
    assert isinstance(held, Held)
    assert held.token == tokens[-1] + 10**12 + 1
    assert tokens == sorted(set(tokens))


async def test_a_lease_asked_for_twice_by_its_owner_is_the_same(line: Line, keys: Keys, store: redis.Redis) -> None:
    lease = Lease("one", ttl_seconds=30, line=line, keys=keys)
    first, second = await lease.acquire(), await lease.acquire()
    assert isinstance(first, Held)
    assert isinstance(second, Held)
    assert first.token == second.token
    assert not isinstance(await Lease("one", ttl_seconds=30, line=line, keys=keys).acquire(), Held)


async def test_only_the_owner_renews_and_releases(line: Line, keys: Keys, store: redis.Redis) -> None:
    owner, stranger = (Lease("one", ttl_seconds=30, line=line, keys=keys) for _ in range(2))
    held = await owner.acquire()
    assert isinstance(held, Held)
    assert not await stranger.renew(held)
    assert not await stranger.release()
    assert store.exists(keys.lock("one"))
    assert await owner.renew(held)
    assert await owner.release()


async def test_a_block_whose_lock_was_lost_is_cancelled(
    coordination: Coordination, store: redis.Redis, keys: Keys, witness: Witness
) -> None:
    async def rob() -> None:
        store.set(keys.lock("one"), "somebody else", px=60_000)

    tokens: list[Held] = []
    with pytest.raises(LeaseLost):
        await locked(coordination, inside=rob, tokens=tokens)
    with pytest.raises(LeaseLost):
        tokens[0].check()
    assert store.get(keys.lock("one")) == "somebody else"
    assert witness.decisions[-1].outcome == "lost"


async def test_a_cancellation_from_outside_stays_one_and_gives_the_lock_back(
    coordination: Coordination, store: redis.Redis, keys: Keys
) -> None:
    async def work() -> None:
        async with coordination.lock("one", ttl=60):
            inside.set()
            await asyncio.Event().wait()

    inside = asyncio.Event()
    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not store.exists(keys.lock("one"))


async def test_who_is_cancelled_while_asking_leaves_no_lock_behind(
    redis_url: str, store: redis.Redis, keys: Keys
) -> None:
    async with actors.redis_line(redis_url) as wire, open_line(wire.url, timeout_seconds=2.0) as line:
        for turns in range(12):
            lease = Lease("one", ttl_seconds=60, line=line, keys=keys)
            task = asyncio.create_task(lease.acquire())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                await lease.release()
            await until(lambda: ", 0 under way" in repr(line))  # it is the same line every time
            assert not store.exists(keys.lock("one"))


async def test_without_redis_it_says_so_at_once_and_again_when_it_is_lost_on_the_way(
    redis_url: str, namespace: str
) -> None:
    async with actors.redis_line(redis_url) as wire, open_line(wire.url, timeout_seconds=2.0) as line:
        coordination = Coordination(line, Keys(namespace))
        with pytest.raises(LeaseLost):
            await locked(coordination, inside=wire.cut)
        with pytest.raises(Unavailable, match="Redis is away"):
            await locked(coordination)
        await wire.mend()
        await until(lambda: line.up)
        await locked(coordination)


async def test_redis_started_empty_under_a_lock_ends_it(private_redis: Server, namespace: str) -> None:
    async with open_line(private_redis.url, timeout_seconds=2.0) as line:
        coordination = Coordination(line, Keys(namespace))

        async def restart() -> None:
            await asyncio.to_thread(private_redis.stop)
            assert await asyncio.to_thread(private_redis.start)

        tokens: list[Held] = []
        with pytest.raises(LeaseLost):
            await locked(coordination, ttl=2, inside=restart, tokens=tokens)
        async with coordination.lock("one") as second:
            assert second.token > tokens[0].token


async def test_of_several_processes_one_holds_it_and_its_death_frees_it(redis_url: str, namespace: str) -> None:
    async with hired(WORKER, redis_url, namespace, "lock") as one, hired(WORKER, redis_url, namespace, "lock") as two:
        one.tell("lock")
        held, first = (await one.says()).split()
        assert held == "held"
        two.tell("lock")
        one.send(signal.SIGKILL)
        held, second = (await two.says()).split()
        assert held == "held"
        assert int(second) > int(first)


async def test_a_holder_that_was_paused_learns_of_its_loss_and_its_token_tells_its_late_writes(
    redis_url: str, namespace: str
) -> None:
    async with hired(WORKER, redis_url, namespace, "lock") as one, hired(WORKER, redis_url, namespace, "lock") as two:
        one.tell("lock")
        assert (await one.says()).startswith("held")
        one.tell("compute")
        assert await one.says() == "computing"
        one.send(signal.SIGSTOP)
        two.tell("lock")
        assert (await two.says()).startswith("held")
        two.tell("write")
        assert await two.says() == "wrote"
        one.send(signal.SIGCONT)
        assert [await one.says(), await one.says()] == ["refused", "lost"]
