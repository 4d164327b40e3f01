"""Whom the hop calls: a bare JSON server on a Protocol, so cheap that it is nobody's bottleneck; registered in Redis."""

from __future__ import annotations

import asyncio
import re
import socket

import orjson

from app import redis_client
from app import settings as settings_room
from app.lab.bench.footing import BACKLOG, REDIS_SECONDS, url_of
from app.lab.bench.subjects.views import PEER_SERVICE
from app.mesh import open_mesh

_REQUEST = re.compile(rb"GET /users/(\d{1,18})(?:\?\S*)? HTTP/1\.1\r\n")


class _Connection(asyncio.Protocol):
    """Answers ``GET /users/<id>``; any other request ends the connection."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # it is one of TCP

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            match = _REQUEST.match(head + b"\r\n")
            if match is None:
                self._transport.close()
                return
            self._transport.write(_answer(int(match[1])))


def _answer(user_id: int) -> bytes:
    body = orjson.dumps({"id": user_id, "name": f"User{user_id}"})
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def serve(sock: socket.socket, stop: asyncio.Event) -> None:
    """Serve on `sock`, registered as users, until `stop`."""
    settings = settings_room.load()
    redis_url = settings.redis_url.get_secret_value()
    url = url_of(sock)
    async with (
        redis_client.open_async(redis_url, timeout_seconds=REDIS_SECONDS) as redis,
        open_mesh(redis=redis, redis_url=redis_url, settings=settings, service=PEER_SERVICE, url=url) as mesh,
    ):
        await mesh.membership.register()
        listener = await asyncio.get_running_loop().create_server(_Connection, sock=sock, backlog=BACKLOG)
        await stop.wait()
        listener.close()
