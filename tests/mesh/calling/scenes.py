"""What peers do in the tests of calls, and what is read of it afterwards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from aiohttp import web

from app import context
from app.context import Context
from app.mesh import Mesh
from app.mesh.calling.transport import AiohttpTransport
from tests.mesh.actors import Answer, Witness

Announce = Callable[..., None]
Open = Callable[..., AbstractAsyncContextManager[Mesh]]


async def hello(request: web.BaseRequest) -> web.Response:
    return web.json_response({"path": request.path_qs})


async def unavailable(request: web.BaseRequest) -> web.Response:
    return web.json_response({}, status=503, headers={"Retry-After": "7"})


async def forever(request: web.BaseRequest) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def replying(status: int, **headers: str) -> Answer:
    """A peer that always says the same; underscores in names of headers stand for hyphens."""

    async def reply(request: web.BaseRequest) -> web.Response:
        return web.json_response({}, status=status, headers={n.replace("_", "-"): v for n, v in headers.items()})

    return reply


def answer(raw: bytes, *, close: bool = True) -> Callable[..., Awaitable[None]]:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if close:
            writer.close()

    return send


async def collect(mesh: Mesh, into: bytearray, **options: Any) -> None:
    async with mesh.stream("GET", "users", "/", **options) as reply:
        async for chunk in reply.chunks():
            into += chunk


@contextmanager
def serving(**facts: Any) -> Iterator[None]:
    """Within a request of somebody's."""
    with context.activate(Context(**({"request_id": "abc"} | facts))):
        yield


def key_for(mesh: Mesh, instance_id: str) -> str:
    """A sticky key whose first choice is `instance_id`."""
    for key in map(str, itertools.count()):
        pick = mesh.balancer.pick("users", key=key)
        assert pick is not None
        pick.settle(None)
        pick.release()
        if pick.peer.id == instance_id:
            return key
    raise AssertionError


def connections_in_use(mesh: Mesh) -> int:
    """Those that are neither idle nor closed."""
    transport = mesh._attempts._transport
    assert isinstance(transport, AiohttpTransport)
    assert transport._connector is not None
    by_host = sum(map(len, transport._connector._acquired_per_host.values()))
    assert by_host == len(transport._connector._acquired)
    return by_host


def decided(witness: Witness, kind: str) -> list[str]:
    return [decision.outcome for decision in witness.decisions if decision.kind == kind]


def outcomes(witness: Witness) -> list[tuple[int, int, str]]:
    return [(attempt.number, attempt.status, attempt.error) for attempt in witness.attempts]
