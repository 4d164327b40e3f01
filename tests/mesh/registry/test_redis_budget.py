"""What a registered process that has nothing to do asks of Redis: at most one command a second."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from app import settings as app_settings
from app.dev import redis as embedded_redis
from app.mesh import Mesh
from tests.mesh.actors import fast_settings, mesh_of, until

MEMBERS = 5
# Ten times as fast as in production.
HASTE = 10
WATCHED_SECONDS = 2.0


async def overheard(url: str, seconds: float) -> Counter[str]:
    """Every command that a client sends within `seconds`; what scripts do by themselves is not counted."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(f"AUTH {at.password}\r\nMONITOR\r\n".encode())
    said: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        line = (await reader.readline()).decode()
        if '"' in line and " lua]" not in line:
            said[line.split('"')[1].lower()] += 1
    writer.transport.abort()
    return said


async def test_a_process_at_rest_sends_redis_no_more_than_one_command_a_second(
    private_redis: embedded_redis.Server, namespace: str
) -> None:
    usual = app_settings.load().registry
    times = {name: getattr(usual, name) / HASTE for name in ("lease_seconds", "heartbeat_seconds", "poll_seconds")}
    settings = fast_settings(namespace, registry=times)
    async with AsyncExitStack() as stack:
        members: list[Mesh] = []
        for _ in range(MEMBERS):
            members.append(await stack.enter_async_context(mesh_of(settings, private_redis.url, "users")))
            await members[-1].membership.register()
        await until(lambda: all(len(mesh.directory.ready("users")) == MEMBERS for mesh in members))
        said = await overheard(private_redis.url, WATCHED_SECONDS)
    assert {"evalsha", "hmget", "xread"} == set(said)
    beats = MEMBERS * WATCHED_SECONDS * HASTE / usual.heartbeat_seconds
    assert said["evalsha"] < 1.6 * beats, "few beats are followed by a sweep"
    assert said.total() / (MEMBERS * WATCHED_SECONDS * HASTE) <= 1, said
