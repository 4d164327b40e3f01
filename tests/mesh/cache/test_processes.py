"""The cache of several real processes."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import redis

from tests.mesh.actors import until
from tests.mesh.coordination.crew import hired

WORKER = "tests.mesh.cache.worker"
PROCESSES, READERS = 4, 250


async def test_a_thousand_misses_over_four_processes_are_one_load(redis_url: str, namespace: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:

        def loads() -> int:
            return int(store.get(f"{namespace}:loads") or 0)

        async with AsyncExitStack() as stack:
            crew = [
                await stack.enter_async_context(hired(WORKER, redis_url, namespace, str(READERS)))
                for _ in range(PROCESSES)
            ]  # fmt: skip
            for worker in crew:
                assert await worker.says() == "ready"

            # All at once.
            for worker in crew:
                worker.tell("read a:1")
            assert await asyncio.gather(*(worker.says() for worker in crew)) == ["1"] * PROCESSES
            assert loads() == 1

            # One invalidates; then again, all at once.
            crew[0].tell("invalidate")
            assert await crew[0].says() == "heard"
            for worker in crew:
                worker.tell("read a:2")
            assert await asyncio.gather(*(worker.says() for worker in crew)) == ["2"] * PROCESSES
            crew[1].tell("read a:1")
            assert await crew[1].says() == "3"

            # The one that loads dies: another one takes over when its lock has ended.
            crew[0].tell("read b:1")
            await until(lambda: loads() == 4)
            crew[0].send(signal.SIGKILL)
            store.pexpire(f"{{{namespace}}}:cache:lock:b:1", 1)  # so as not to wait for its whole time
            for worker in crew[1:]:
                worker.tell("read b:1")
            assert await asyncio.gather(*(worker.says() for worker in crew[1:])) == ["5"] * (PROCESSES - 1)
