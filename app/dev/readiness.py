"""When a system is ready: every process answers ``/readyz`` with 200, and the registry shows them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import aiohttp

from app.dev import roster
from app.errors import Unavailable
from app.settings import RegistrySettings

PAUSE_SECONDS = 0.05
PROBE = aiohttp.ClientTimeout(total=2.0)


class Probed(Protocol):
    """A process that is to become ready; both may change when it is restarted."""

    @property
    def pid(self) -> int: ...

    @property
    def url(self) -> str: ...


P = TypeVar("P", bound=Probed)


async def wait(
    processes: Sequence[P],
    *,
    redis_url: str,
    settings: RegistrySettings,
    became_ready: Callable[[P], None],
) -> None:
    """Return once all are ready; it waits for ever, so bound it."""
    async with aiohttp.ClientSession(timeout=PROBE) as session, asyncio.TaskGroup() as group:
        for process in processes:
            group.create_task(_answers(session, process, became_ready))
    while not await asyncio.to_thread(_are_registered, processes, redis_url, settings):
        await asyncio.sleep(PAUSE_SECONDS)


async def _answers(session: aiohttp.ClientSession, process: P, became_ready: Callable[[P], None]) -> None:
    while not await _is_ready(session, process.url):
        await asyncio.sleep(PAUSE_SECONDS)
    became_ready(process)


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/readyz") as reply:
            return reply.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _are_registered(processes: Iterable[Probed], redis_url: str, settings: RegistrySettings) -> bool:
    try:
        members = roster.read(redis_url, settings)
    except Unavailable:
        return False
    present = {member.instance.pid for member in members if member.instance.takes_requests}
    return {process.pid for process in processes} <= present
