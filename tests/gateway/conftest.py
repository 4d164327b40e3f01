"""A real edge under Hypercorn, and services of the test's own behind it, found through a real Redis."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from aiohttp import web
from hypercorn.asyncio import serve
from hypercorn.config import Config

from app import gateway, settings
from app.gateway.proxy import Edge
from app.mesh import Mesh, open_mesh
from app.resources import open_resources
from app.settings import Settings
from app.telemetry import Metrics
from app.web import factory
from app.web.entrance.entry import Entry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0.005)


@dataclass
class Seen:
    """One request as it arrived at a service."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@dataclass
class Upstream:
    """A service of the test's own."""

    mesh: Mesh
    seen: list[Seen] = field(default_factory=list)


@dataclass
class House:
    """The edge, and what stands behind it."""

    settings: Settings
    redis: redis.asyncio.Redis
    stack: AsyncExitStack
    edge: Edge
    port: int
    client: aiohttp.ClientSession
    metrics: Metrics

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def announced(self, service: str, url: str, *prefixes: str) -> AsyncIterator[Mesh]:
        """An instance of `service` at `url`, which the edge has heard of."""
        async with mesh_of(self.settings, self.redis, service, url=url, prefixes=prefixes) as mesh:
            await mesh.membership.register()
            await until(lambda: mesh.instance.id in {i.id for i in self.edge.mesh.directory.instances(service)})
            yield mesh

    async def serve(self, service: str, *prefixes: str, handler: Handler | None = None) -> Upstream:
        """Start a real HTTP server for `service` that remembers what it was asked, until the test is over."""
        seen: list[Seen] = []

        async def remember(request: web.Request) -> web.StreamResponse:
            headers = [(n.decode().lower(), v.decode("latin-1")) for n, v in request.raw_headers]
            seen.append(Seen(request.method, request.raw_path, headers))
            if handler is not None:
                return await handler(request)
            seen[-1].body = await request.read()
            return web.json_response({"service": service})

        app = web.Application(client_max_size=2**40)
        app.router.add_route("*", "/{path:.*}", remember)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        mesh = await self.stack.enter_async_context(self.announced(service, f"http://127.0.0.1:{port}", *prefixes))
        return Upstream(mesh, seen)

    async def serve_raw(
        self,
        service: str,
        *prefixes: str,
        talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    ) -> Mesh:
        """Start a server that speaks whatever `talk` writes, once the head of a request has arrived."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await talk(reader, writer)
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        return await self.stack.enter_async_context(self.announced(service, f"http://127.0.0.1:{port}", *prefixes))

    async def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own, and read until the edge closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def mesh_of(
    loaded: Settings, client: redis.asyncio.Redis, service: str, *, url: str, prefixes: tuple[str, ...] = ()
) -> AsyncIterator[Mesh]:
    async with open_mesh(
        redis=client,
        redis_url=loaded.redis_url.get_secret_value(),
        settings=loaded,
        service=service,
        url=url,
        prefixes=prefixes,
        version="test",
        openapi_digest="",
        cache_file=None,
    ) as mesh:
        yield mesh


@asynccontextmanager
async def hypercorn(app: Any) -> AsyncIterator[int]:
    """The port on which `app` is served."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.keep_alive_timeout = 30
    config.graceful_timeout = 0.1
    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config.bind = [f"fd://{os.dup(listener.fileno())}"]  # Hypercorn closes what it is given
        server = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            await server


@pytest.fixture
async def house(redis_url: str, namespace: str) -> AsyncIterator[House]:
    loaded = settings.load(redis_url=redis_url, registry={"namespace": namespace}, max_body_bytes=2**30)
    metrics = Metrics(service="gateway")
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(
            open_resources(loaded, gateway.service, url="http://127.0.0.1:1", metrics=metrics)
        )
        app = factory.create_app(gateway.service, loaded)
        factory.attach(app, resources)
        edge = gateway.front(app.asgi_app, resources)
        entry = Entry(edge, metrics=metrics, max_seconds=20.0)
        port = await stack.enter_async_context(hypercorn(entry))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        )
        services = await stack.enter_async_context(AsyncExitStack())
        yield House(loaded, resources.redis, services, edge, port, session, metrics)
        await services.aclose()
        await until(lambda: metrics.in_flight.value == 0)  # whatever a test did: no request is left behind
