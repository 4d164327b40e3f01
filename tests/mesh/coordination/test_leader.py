from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import pytest
import redis

from app.mesh.coordination import Coordination, Held
from app.mesh.keys import Keys
from tests.mesh.actors import Witness, until
from tests.mesh.coordination.crew import Worker, hired

WORKER = "tests.mesh.coordination.worker"


async def test_one_of_many_runs_it_again_and_again(coordination: Coordination, witness: Witness) -> None:
    runs: list[tuple[int, int]] = []
    async with AsyncExitStack() as stack:
        for number in range(5):

            async def work(held: Held, number: int = number) -> None:
                runs.append((number, held.token))

            await stack.enter_async_context(coordination.job("sweep", work, every=0.01))
        await until(lambda: len(runs) >= 10)
    assert len(set(runs)) == 1
    first = witness.decisions[0]
    assert (first.kind, first.service, first.outcome) == ("leader", "sweep", "leading")


async def test_a_run_that_fails_does_not_end_the_job(coordination: Coordination, witness: Witness) -> None:
    runs = 0

    async def work(held: Held) -> None:
        nonlocal runs
        runs += 1
        raise ZeroDivisionError

    async with coordination.job("sweep", work, every=0.01) as job:
        await until(lambda: runs >= 3)
        assert job.leading
    assert [decision.outcome for decision in witness.decisions].count("failed") >= 3


async def test_stopping_cancels_the_run_and_lets_the_next_one_lead_at_once(
    coordination: Coordination, store: redis.Redis, keys: Keys
) -> None:
    events: list[str] = []

    async def work(held: Held) -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            events.append("ended")

    async with coordination.job("sweep", work, every=0.01, ttl=60):
        await until(lambda: events)
    assert events == ["began", "ended"]
    assert not store.exists(keys.lock("job:sweep"))


async def test_a_lost_lease_cancels_the_run(
    coordination: Coordination, store: redis.Redis, keys: Keys, witness: Witness
) -> None:
    cancelled = asyncio.Event()

    async def work(held: Held) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with coordination.job("sweep", work, every=0.01, ttl=0.3) as job:
        await until(lambda: job.leading)
        store.set(keys.lock("job:sweep"), "somebody else", px=60_000)
        await asyncio.wait_for(cancelled.wait(), 20)
        await until(lambda: not job.leading)
    assert store.get(keys.lock("job:sweep")) == "somebody else"
    assert "lost" in [decision.outcome for decision in witness.decisions]


async def test_a_new_leader_keeps_the_rhythm_and_repeats_what_was_not_ended(
    coordination: Coordination, store: redis.Redis, keys: Keys
) -> None:
    runs = 0

    async def work(held: Held) -> None:
        nonlocal runs
        runs += 1

    async with coordination.job("nightly", work, every=3600, ttl=1) as job:
        await until(lambda: store.exists(keys.job("nightly")))
    assert runs == 1
    async with coordination.job("nightly", work, every=3600, ttl=1) as job:
        await until(lambda: job.leading)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert runs == 1
    store.delete(keys.job("nightly"))  # as if its last run had never ended
    async with coordination.job("nightly", work, every=3600, ttl=1) as job:
        await until(lambda: runs == 2)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_of_several_processes_another_takes_over_and_never_two_write(
    redis_url: str, namespace: str, blow: signal.Signals
) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:

        def writes() -> list[tuple[int, int]]:
            lines: list[str] = store.lrange(f"{namespace}:writes", 0, -1)
            return [(int(token), int(pid)) for token, pid in map(str.split, lines)]

        async with AsyncExitStack() as stack:
            crew: dict[int, Worker] = {}
            for _ in range(3):
                worker = await stack.enter_async_context(hired(WORKER, redis_url, namespace, "job"))
                crew[worker.pid] = worker
            for worker in crew.values():
                assert await worker.says() == "ready"
            await until(lambda: len(writes()) >= 5)
            first = writes()[-1][1]
            assert {pid for _, pid in writes()} == {first}
            crew[first].send(blow)
            await until(lambda: writes()[-1][1] != first)
            if blow == signal.SIGSTOP:
                crew[first].send(signal.SIGCONT)
                seen = len(writes())
                await until(lambda: len(writes()) >= seen + 20)
            second = writes()[-1]
        tokens = [token for token, _ in writes()]
        assert tokens == sorted(tokens)
        assert len({pid for _, pid in writes()}) == 2
        assert second[1] != first
        # Only of a paused leader may a run have overlapped, and then its token told.
        assert blow == signal.SIGSTOP or store.get(f"{namespace}:overlaps") is None
