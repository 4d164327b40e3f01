"""Two ways to an application: over a real socket and server, or message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from app.web.serving import server


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the ASGI application `app` on a free port of this loop; yields a client of it."""
    stop = asyncio.Event()
    sock = server.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    task = asyncio.create_task(server.serve(app, sock, stop=stop, drain_seconds=2.0, on_stop=nothing, **options))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", auto_decompress=False) as client:
            yield client
    finally:
        stop.set()
        await task


async def nothing() -> None:
    pass


class Exchange:
    """One request, message by message: what the application asked for, and what it sent.

    Args:
        messages: what ``receive`` gives, in order; after them it waits for ever.
        scope: members that differ from a plain ``GET /``.
    """

    def __init__(self, *messages: dict[str, Any], **scope: Any) -> None:
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"example.com")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "extensions": {},
            **scope,
        }
        self._messages = list(messages)
        self.received = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.received == len(self._messages):
            await asyncio.Event().wait()
        self.received += 1
        return self._messages[self.received - 1]

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def run(self, app: Any) -> Exchange:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


def chunk(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}
