"""``python -m tests.mesh.cache.worker URL NAMESPACE READERS``: one process of a fleet that all want the same value."""

from __future__ import annotations

import asyncio
import sys

import redis.asyncio

from tests.mesh.cache.stage import process_cache
from tests.mesh.coordination.crew import heard_line, say

LOAD_SECONDS = 0.2


async def main(url: str, namespace: str, readers: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as client, process_cache(url, namespace) as cache:

        async def load() -> list[int]:
            loads = await client.incr(f"{namespace}:loads")
            await asyncio.sleep(LOAD_SECONDS)
            return [loads]

        async def read(key: str) -> int:
            [value] = await cache.get_or_load(key, load, ttl=60, tags=("hot",))
            return value

        say("ready")
        while (word := await heard_line()) != "stop":
            order, _, key = word.partition(" ")
            if order == "invalidate":
                say("heard" if await cache.invalidate("hot") else "unsent")
            else:
                values = await asyncio.gather(*(read(key) for _ in range(int(readers))))
                say(*sorted(set(values)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
