"""Runs inside a child: calls to a peer through the mesh client and with aiohttp alone; picking among many peers.

``python -m app.lab.bench.calls PEER_URL --core N --rounds N --calls N`` prints a JSON array of samples.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import orjson

from app import context, redis_client
from app import settings as settings_room
from app.lab.bench import footing
from app.lab.bench.footing import REDIS_SECONDS
from app.lab.bench.mesh_call import CONCURRENCY, CREW, PERMIT
from app.lab.bench.serve import bind
from app.lab.bench.subjects import views
from app.mesh import Instance, Mesh, open_mesh
from app.mesh.balancing.balancer import Balancer
from app.mesh.balancing.breaker import Breaker
from app.mesh.registry.view import Table

_PICKS = 20_000
_ANSWER_SECONDS = 0.01
_NOWHERE = "http://127.0.0.1:9"
_REQUEST_SECONDS = 600.0

Call = Callable[[], Awaitable[Any]]
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.lab.bench.calls")
    parser.add_argument("peer")
    for name in ("core", "rounds", "calls"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    bind(options.core)
    footing.run(lambda: _measure(options.peer, options.rounds, options.calls))


async def _measure(peer: str, rounds: int, calls: int) -> None:
    settings = settings_room.load()
    redis_url = settings.redis_url.get_secret_value()
    async with (
        redis_client.open_async(redis_url, timeout_seconds=REDIS_SECONDS) as redis,
        open_mesh(redis=redis, redis_url=redis_url, settings=settings, service="lab", url=_NOWHERE) as mesh,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        kinds = {"aiohttp": _bare(session, peer), "mesh": _through(mesh)}
        # Calls are made while serving a request, whose id and deadline they pass on.
        with context.activate(context.from_headers({}, max_seconds=_REQUEST_SECONDS)):
            samples = [
                {"subject": kind, "round": number, "figures": figures}
                async for kind, number, figures in _rounds(kinds, rounds, calls)
            ]
    for number in range(1, rounds + 1):
        samples += [{"subject": f"pick-{many}", "round": number, "figures": _pick(many)} for many in CREW]
        samples.append({"subject": PERMIT.key, "round": number, "figures": _permit()})
    sys.stdout.buffer.write(orjson.dumps(samples))


async def _rounds(kinds: dict[str, Call], rounds: int, calls: int) -> Any:
    for call in kinds.values():
        await _cost(call, max(calls // 4, CONCURRENCY))
    for number in range(1, rounds + 1):
        for kind, call in kinds.items():
            yield kind, number, await _cost(call, calls)


async def _cost(call: Call, calls: int) -> Figures:
    turns: Iterator[int] = iter(range(calls))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(_worker(call, turns) for _ in range(CONCURRENCY)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_us": cpu / calls * 1e6, "per_second": calls / wall}


async def _worker(call: Call, turns: Iterator[int]) -> None:
    for _ in turns:
        await call()


def _bare(session: aiohttp.ClientSession, peer: str) -> Call:
    url = peer + views.USER_PATH

    async def call() -> Any:
        async with session.get(url) as response:
            return orjson.loads(await response.read())

    return call


def _through(mesh: Mesh) -> Call:
    async def call() -> Any:
        return (await mesh.get(views.PEER_SERVICE, views.USER_PATH)).json()

    return call


def _pick(many: int) -> Figures:
    peers = tuple(Instance(service="users", id=f"users-{n}", generation=1, url=_NOWHERE) for n in range(many))
    balancer = Balancer()
    balancer.update(Table(instances={"users": peers}, ready={"users": peers}))

    def settle() -> None:
        pick = balancer.pick("users")
        if pick is not None:
            with pick:
                pick.settle()

    return _repeated(settle)


def _permit() -> Figures:
    breaker = Breaker("users")

    def succeed() -> None:
        with breaker.permit() as permit:
            permit.succeed(_ANSWER_SECONDS)

    return _repeated(succeed)


def _repeated(what: Callable[[], None]) -> Figures:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(_PICKS):
        what()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_us": cpu / _PICKS * 1e6, "per_second": _PICKS / wall}


if __name__ == "__main__":
    main()
