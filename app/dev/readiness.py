"""When a system is ready: every process answers ``/readyz`` with 200, and the registry shows them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import aiohttp

from app.dev import roster
from app.dev.plan import Replica
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


async def wait(
    processes: Mapping[Replica, Probed],
    *,
    redis_url: str,
    settings: RegistrySettings,
    became_ready: Callable[[Replica], None],
) -> None:
    """Return once all are ready; it waits for ever, so bound it."""
    async with aiohttp.ClientSession(timeout=PROBE) as session, asyncio.TaskGroup() as group:
        for replica, process in processes.items():
            group.create_task(_answers(session, replica, process, became_ready))
    while not await asyncio.to_thread(_are_registered, processes.values(), redis_url, settings):
        await asyncio.sleep(PAUSE_SECONDS)


async def _answers(
    session: aiohttp.ClientSession, replica: Replica, process: Probed, became_ready: Callable[[Replica], None]
) -> None:
    while not await _is_ready(session, process.url):
        await asyncio.sleep(PAUSE_SECONDS)
    became_ready(replica)


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
