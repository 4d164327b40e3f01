"""Runs inside a child: directories that watch one registry, members that renew their leases, and a crowd of records.

``python -m app.lab.bench.crowd PART --core N --round N --seconds S`` prints a JSON array of samples.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import orjson
from redis.asyncio import Redis

from app import redis_client
from app import settings as settings_room
from app.lab import figures
from app.lab.bench import footing, proc
from app.lab.bench.fleet import CHANGE, CROWD, INSTANCES, PARTS, STEADY, WATCHERS
from app.lab.bench.serve import bind
from app.mesh import Instance, Mesh, open_mesh
from app.mesh.keys import Keys
from app.mesh.observer import DirectoryChange, NullObserver
from app.mesh.registry import operations
from app.mesh.registry.record import Load
from app.mesh.registry.runner import Registry
from app.settings import Settings
from app.web.serving.server import calm_collector

_CHANGES = 40
_APART_SECONDS = 0.05
# Registering is news to everybody; this long after it, all have heard it.
_SETTLE_SECONDS = 5.0
_AT_ONCE = 64
_LOOK_SECONDS = 0.001
_TIMEOUT_SECONDS = 30.0
_NOWHERE = "http://127.0.0.1:9"

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.lab.bench.crowd")
    parser.add_argument("part", choices=PARTS)
    for name, kind in (("core", int), ("round", int), ("seconds", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    bind(options.core)
    # As every process of the mesh does: a full pass over all modules is no part of what is measured.
    calm_collector()
    footing.run(lambda: _measure(options.part, options.round, options.seconds))


async def _measure(part: str, number: int, seconds: float) -> None:
    settings = _apart(settings_room.load(), f"{part}-{number}")
    async with redis_client.open_async(
        settings.redis_url.get_secret_value(), timeout_seconds=_TIMEOUT_SECONDS
    ) as client:
        if part == "crowd":
            found = {CROWD.key: await _of_crowd(client, settings)}
        else:
            found = await _of_watchers(client, settings, seconds)
    samples = [{"subject": key, "round": number, "figures": some} for key, some in found.items()]
    sys.stdout.buffer.write(orjson.dumps(samples))


def _apart(settings: Settings, name: str) -> Settings:
    """The same, with a registry of its own: nobody is to hear of those of another round."""
    registry = settings.registry.model_copy(update={"namespace": f"{settings.registry.namespace}-{name}"})
    return settings.model_copy(update={"registry": registry})


async def _beat(client: Redis, settings: Settings, who: Instance) -> int:
    """One heartbeat of `who`; where the history stands after it."""
    keys = Keys(settings.registry.namespace)
    beat = await Registry(client, keys).run(operations.heartbeat(keys, settings.registry, who, Load()))
    return beat.position.seq


def _instances(service: str, many: int) -> list[Instance]:
    return [Instance(service=service, id=f"{service}-{n}", generation=1, url=_NOWHERE) for n in range(many)]


# ------------------------------------------------------------------------------------------- a hundred who watch


class _Ear(NullObserver):
    """When its directory has applied which change."""

    def __init__(self) -> None:
        self.heard: dict[int, float] = {}

    def directory_changed(self, details: DirectoryChange, /) -> None:
        self.heard[details.seq] = time.perf_counter()


async def _of_watchers(client: Redis, settings: Settings, seconds: float) -> dict[str, Figures]:
    before = await _commands_per_second(client, seconds / 4)
    async with AsyncExitStack() as stack:
        ears = [_Ear() for _ in range(WATCHERS)]
        meshes = [await stack.enter_async_context(_mesh(client, settings, ear)) for ear in ears]
        change = await _changes(client, settings, ears)
        await asyncio.gather(*(mesh.membership.register() for mesh in meshes))
        await asyncio.sleep(_SETTLE_SECONDS)
        during = await _commands_per_second(client, seconds)
    return {CHANGE.key: change, STEADY.key: {"commands": (during - before) / WATCHERS}}


@asynccontextmanager
async def _mesh(client: Redis, settings: Settings, ear: _Ear) -> AsyncIterator[Mesh]:
    redis_url = settings.redis_url.get_secret_value()
    async with open_mesh(
        redis=client, redis_url=redis_url, settings=settings, service="watcher", url=_NOWHERE, observer=ear
    ) as mesh:
        yield mesh


async def _changes(client: Redis, settings: Settings, ears: Sequence[_Ear]) -> Figures:
    """From when a change is sent to Redis until the table of each directory has it, over all directories and changes."""
    latencies: list[float] = []
    # The very first one begins the registry's history, and makes everybody take a snapshot.
    await _beat(client, settings, *_instances("first", 1))
    await asyncio.sleep(1.0)
    for who in _instances("changing", _CHANGES):
        sent = time.perf_counter()
        seq = await _beat(client, settings, who)
        while not all(seq in ear.heard for ear in ears):
            await asyncio.sleep(_APART_SECONDS)
        latencies += [(ear.heard[seq] - sent) * 1000 for ear in ears]
    latencies.sort()
    return {"p50_ms": figures.percentile(latencies, 50), "p99_ms": figures.percentile(latencies, 99)}


async def _commands_per_second(client: Redis, seconds: float) -> float:
    began, before = time.perf_counter(), await _commands(client)
    await asyncio.sleep(seconds)
    return (await _commands(client) - before - 1) / (time.perf_counter() - began)


async def _commands(client: Redis) -> int:
    # Reads, and not commands: of those it also counts what scripts do. Nothing here is sent in one go with another.
    return int((await client.info("stats"))["total_reads_processed"])


# ------------------------------------------------------------------------------------------- ten thousand


async def _of_crowd(client: Redis, settings: Settings) -> Figures:
    crowd = _instances("crowd", INSTANCES)
    turns = iter(crowd)
    await asyncio.gather(*(_register(client, settings, turns) for _ in range(_AT_ONCE)))
    memory, stall = proc.rss_bytes(os.getpid()), _Stall()
    async with stall:
        began = time.perf_counter()
        async with _mesh(client, settings, _Ear()) as mesh:
            took = time.perf_counter() - began
            found = len(mesh.directory.instances("crowd"))
            memory = proc.rss_bytes(os.getpid()) - memory
    if found != INSTANCES:
        raise RuntimeError(f"the snapshot has {found} of {INSTANCES} instances")
    return {"snapshot_ms": took * 1000, "stall_ms": stall.longest * 1000, "memory_mib": memory / 2**20}


async def _register(client: Redis, settings: Settings, turns: Iterator[Instance]) -> None:
    for who in turns:
        await _beat(client, settings, who)


class _Stall:
    """The longest time for which the loop did not turn."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


if __name__ == "__main__":
    main()
