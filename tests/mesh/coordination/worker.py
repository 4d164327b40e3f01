"""``python -m tests.mesh.coordination.worker URL NAMESPACE ROLE``: a process that locks, or that runs a job."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import redis
import redis.asyncio

from app.errors import LeaseLost
from app.mesh.coordination import Coordination, Held, open_line
from app.mesh.keys import Keys
from tests.mesh.coordination.crew import heard_line, say

# Whoever is merely late on a busy machine is not to lose its lease: only who was stopped or killed.
TTL_SECONDS = 2.0

# A store that refuses whoever comes with a smaller token than one that it has seen.
WRITE = """
local seen = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) < seen then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[1] .. ' ' .. ARGV[2])
return 1
"""


async def lock(coordination: Coordination, client: redis.asyncio.Redis, url: str, namespace: str) -> None:
    while await heard_line() == "lock":
        try:
            async with coordination.lock("the one", ttl=TTL_SECONDS, wait=30) as held:
                say("held", held.token)
                while (word := await heard_line()) == "write":
                    say("wrote" if await write(client, namespace, held) else "refused")
                if word == "compute":
                    compute(url, namespace, held)
                    await asyncio.sleep(30)
        except LeaseLost:
            say("lost")
        else:
            say("released")


async def job(coordination: Coordination, client: redis.asyncio.Redis, url: str, namespace: str) -> None:
    async def work(held: Held) -> None:
        await client.set(f"{namespace}:busy", held.token)
        await asyncio.sleep(0.01)
        if await client.get(f"{namespace}:busy") != str(held.token).encode():
            await client.incr(f"{namespace}:overlaps")
        await write(client, namespace, held)

    async with coordination.job("sweep", work, every=0.02, ttl=TTL_SECONDS):
        say("ready")
        await heard_line()
    say("stopped")


def compute(url: str, namespace: str, held: Held) -> None:
    """Write and write, and hold the event loop meanwhile, so that nothing here can hear of a loss."""
    say("computing")
    with redis.Redis.from_url(url) as client:
        while client.eval(WRITE, 2, *places(namespace), str(held.token), str(os.getpid())):
            time.sleep(0.01)
    say("refused")


def places(namespace: str) -> tuple[str, str]:
    return f"{namespace}:seen", f"{namespace}:writes"


async def write(client: redis.asyncio.Redis, namespace: str, held: Held) -> bool:
    return bool(await client.eval(WRITE, 2, *places(namespace), str(held.token), str(os.getpid())))


async def main(url: str, namespace: str, role: str) -> None:
    async with redis.asyncio.Redis.from_url(url) as client, open_line(url, timeout_seconds=2.0) as line:
        coordination = Coordination(line, Keys(namespace))
        await {"lock": lock, "job": job}[role](coordination, client, url, namespace)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
