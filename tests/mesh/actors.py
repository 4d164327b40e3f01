"""Who acts in the tests of the mesh: instances, peers that misbehave on demand, a Redis line that can be cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from app import redis_client
from app import settings as app_settings
from app.mesh import Mesh, open_mesh
from app.mesh.keys import Keys
from app.mesh.observer import Attempt, Decision, DirectoryChange, RegistryContact
from app.mesh.registry import operations
from app.mesh.registry.record import Instance, Load
from app.mesh.registry.runner import BlockingRegistry
from app.settings import Settings

PATIENCE_SECONDS = 20.0


def instance(service: str = "users", id: str = "users-1", **changes: Any) -> Instance:  # noqa: A002  # as the field
    facts: dict[str, Any] = {"generation": 1, "url": "http://127.0.0.1:1", "prefixes": (f"/{service}",)}
    return Instance(service=service, id=id, **(facts | changes))


def beat(registry: BlockingRegistry, settings: Settings, who: Instance) -> None:
    """`who` has just sent one heartbeat."""
    registry.run(operations.heartbeat(Keys(settings.registry.namespace), settings.registry, who, Load()))


def fast_settings(namespace: str, **changes: Any) -> Settings:
    """Everything as in production, only sooner."""
    times = {"lease_seconds": 1.0, "heartbeat_seconds": 0.2, "poll_seconds": 0.2}
    registry = {"namespace": namespace, **times, **changes.pop("registry", {})}
    return app_settings.load(registry=registry, **changes)


async def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`; the test fails if it never comes true."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.005)


@dataclass
class Witness:
    """An observer that remembers."""

    attempts: list[Attempt] = field(default_factory=list)
    changes: list[DirectoryChange] = field(default_factory=list)
    contacts: list[RegistryContact] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def attempt(self, details: Attempt, /) -> None:
        self.attempts.append(details)

    def directory_changed(self, details: DirectoryChange, /) -> None:
        self.changes.append(details)

    def registry_contact(self, details: RegistryContact, /) -> None:
        self.contacts.append(details)

    def decision(self, details: Decision, /) -> None:
        self.decisions.append(details)


@asynccontextmanager
async def mesh_of(
    settings: Settings, redis_url: str, service: str = "caller", *, url: str = "http://127.0.0.1:9", **options: Any
) -> AsyncIterator[Mesh]:
    async with (
        redis_client.open_async(redis_url, timeout_seconds=0.5) as client,
        open_mesh(redis=client, redis_url=redis_url, settings=settings, service=service, url=url, **options) as mesh,
    ):
        yield mesh


@dataclass
class Peer:
    """A real HTTP server that counts what reaches it."""

    url: str
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    waiting: int = 0


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def http_peer(answer: Answer, *, host: str = "127.0.0.1") -> AsyncIterator[Peer]:
    peer = Peer("")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer.requests.append((request.method, request.raw_path, headers, await request.read()))
        peer.waiting += 1
        try:
            return await answer(request)
        finally:
            peer.waiting -= 1

    runner = web.ServerRunner(web.Server(handle, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0)
        await site.start()
        peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield peer
    finally:
        await runner.cleanup()


RawAnswer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_peer(answer: RawAnswer) -> AsyncIterator[str]:
    """A server that reads a request's head, then does with the connection what `answer` does."""

    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await answer(reader, writer)
                if writer.is_closing():
                    return

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def refused_url() -> str:
    """An address at which nobody listens (any more)."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}"


class Line:
    """A TCP line to Redis that can be cut and mended."""

    def __init__(self, redis_url: str) -> None:
        self._far = urlsplit(redis_url)
        self._target = (self._far.hostname or "127.0.0.1", self._far.port or 6379)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """As the far end's, with its user and password."""
        credentials, at, _ = self._far.netloc.rpartition("@")
        return self._far._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def lead_to(self, host: str, port: int) -> None:
        """From now on new connections end elsewhere."""
        self._target = (host, port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._server is None:  # it was cut before this connection had its turn
            writer.transport.abort()
            return
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            self._writers.add(far_writer)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def redis_line(redis_url: str) -> AsyncIterator[Line]:
    line = Line(redis_url)
    await line.mend()
    try:
        yield line
    finally:
        await line.cut()
