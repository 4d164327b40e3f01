"""Front door of one process: one service, one event loop, one entry in the registry.

``serve(settings)`` is what ``mesh run users`` does. Any other ASGI server can do it too:
``MESH_SERVICE=users MESH_PORT=8001 hypercorn --bind 127.0.0.1:8001 app.asgi:app``.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import orjson

from app import production, telemetry
from app import settings as settings_room
from app.errors import Misconfigured, PlatformError
from app.mesh.lag import LoopLag
from app.mesh.registry.directory import cancelled
from app.mesh.registry.operations import WishedState
from app.resources import Resources, open_resources
from app.service import GATEWAY, Service, load
from app.settings import ServingSettings, Settings
from app.web.entrance.entry import Entry
from app.web.entrance.intake import Pace
from app.web.entrance.limiter import Policy
from app.web.entrance.shedding import Gate
from app.web.factory import ServiceApp, attach, create_app
from app.web.serving import server

# What still holds the process up after the drain's own time has this much more.
_WATCHDOG_SECONDS = 5.0

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # nothing is bound here: these are told apart


class Process:
    """One service as an ASGI application, with everything it opens and closes.

    Args:
        service: what is served.
        settings: how.
        url: where peers reach it.

    Raises:
        Misconfigured: it must not be served so, as in production with the demo's secrets.
    """

    def __init__(self, service: Service, settings: Settings, url: str) -> None:
        self.service = service
        self.settings = settings
        self.url = url
        self.metrics = telemetry.Metrics(service=service.name)
        self.flask: ServiceApp = create_app(service, settings)
        production.require(settings, service, debug=self.flask.debug)
        self.gate = _gate(settings.serving, service.name)
        self.entry = Entry(
            self.flask.asgi_app,
            metrics=self.metrics,
            max_seconds=settings.request_timeout_seconds,
            gate=self.gate,
            pace=Pace(settings.serving.body_grace_seconds, settings.serving.min_body_bytes_per_second),
            public=service.name == GATEWAY,
        )
        self.resources: Resources | None = None
        self._leaving = False
        self._draining: list[asyncio.Task[None]] = []
        self.flask.while_serving(self._while_serving)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.entry(scope, receive, send)

    async def leave(self) -> None:
        """Stop being called: not ready, and wait until whoever calls us has heard of it, for a bounded time."""
        self._leaving = True
        await self._drain()

    async def _drain(self) -> None:
        if self.resources is not None:
            self.entry.draining = True
            await self.resources.mesh.membership.drain(self.settings.serving.drain_notice_seconds)

    def _obey(self, wish: WishedState) -> None:
        """What an operator wants. A process that drains goes on serving who still comes, and does not end."""
        if self.resources is None or self._leaving:
            return
        if wish == "draining":
            self._draining = [task for task in self._draining if not task.done()]
            self._draining.append(asyncio.create_task(self._drain(), name="asgi.drain"))
            return
        self.entry.draining = False
        self.resources.mesh.membership.set_state("ready")

    async def _while_serving(self) -> AsyncIterator[None]:
        with LoopLag() as lag:
            self.gate.lag = lambda: lag.seconds
            self.metrics.follow_serving(
                limit=lambda: self.gate.limit, waiting=lambda: self.gate.in_flight, lag_seconds=self.gate.lag
            )
            async with self._opened() as resources:
                self._introduce(resources)
                async with self._alongside(resources):
                    await resources.mesh.membership.register()
                    self.entry.instance_id = resources.mesh.instance.id
                    resources.mesh.membership.on_wish(self._obey)
                    yield
                    await cancelled(self._draining)

    def _alongside(self, resources: Resources) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self.service.alongside is None else self.service.alongside(resources)

    def _opened(self) -> AbstractAsyncContextManager[Resources]:
        digest = hashlib.sha256(orjson.dumps(self.flask.api_doc)).hexdigest()[:16]
        return open_resources(
            self.settings,
            self.service,
            url=self.url,
            metrics=self.metrics,
            openapi_digest=digest,
            admission=self.gate,
        )

    def _introduce(self, resources: Resources) -> None:
        telemetry.configure(self.settings, service=self.service.name, instance=resources.mesh.instance.id)
        self.resources = resources
        self.gate.observer = resources.observer
        attach(self.flask, resources)
        if self.service.front is not None:
            self.entry.app = self.service.front(self.entry.app, resources)


def _gate(settings: ServingSettings, service: str) -> Gate:
    at_the_edge = service == GATEWAY
    policy = Policy(
        maximum=settings.gateway_max_concurrent if at_the_edge else settings.max_concurrent,
        adaptive=settings.adaptive and not at_the_edge,
        patience_seconds=settings.patience_seconds,
    )
    return Gate(policy, service=service, max_lag_seconds=settings.max_loop_lag_seconds)


def serve(settings: Settings) -> None:
    """Serve ``settings.service`` until SIGTERM or SIGINT; returns when everything is closed.

    Raises:
        Misconfigured: no such service, the address is taken, it is not fit for production, or its start-up failed.
    """
    server.run(lambda: _serve(settings))


async def _serve(settings: Settings) -> None:
    stop = server.stop_on_signals()
    server.allow_open_files()
    service = _service_of(settings)
    socks = _sockets(settings)
    telemetry.configure(settings, service=service.name, instance="")
    try:
        process = Process(service, settings, _url(settings, socks[0].getsockname()[1]))
    except PlatformError:
        for sock in socks:
            sock.close()
        raise

    async def on_stop() -> None:
        longest = settings.serving.drain_notice_seconds + settings.drain_seconds
        server.end_process_after(longest + _WATCHDOG_SECONDS)
        await process.leave()

    await server.serve(
        process,
        *socks,
        stop=stop,
        drain_seconds=settings.drain_seconds,
        on_stop=on_stop,
        on_ready=server.calm_collector,
        head_seconds=settings.serving.head_seconds,
    )


def _sockets(settings: Settings) -> list[socket.socket]:
    """The own address first, then what was inherited: one who shares an address with others has one for itself, too."""
    inherited = [] if settings.listen_fd is None else [server.inherited(settings.listen_fd)]
    own = [] if inherited and settings.port == 0 else [server.listen(settings.host, settings.port)]
    return own + inherited


def _service_of(settings: Settings) -> Service:
    if settings.service is None:
        raise Misconfigured("MESH_SERVICE names the service to serve; it is not set")
    return load(settings.service)


def _url(settings: Settings, port: int) -> str:
    if settings.advertise_url is not None:
        return settings.advertise_url.rstrip("/")
    if settings.host in _ANY_ADDRESS:
        raise Misconfigured(f"MESH_ADVERTISE_URL must say where peers reach this process: {settings.host} is nowhere")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def __getattr__(name: str) -> Any:
    """``app``, made when a foreign server asks for it, and not when this module is merely imported."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = settings_room.load()
    if settings.port == 0 and settings.advertise_url is None:
        raise Misconfigured("MESH_PORT or MESH_ADVERTISE_URL must say where the server listens")
    process = Process(_service_of(settings), settings, _url(settings, settings.port))
    globals()["app"] = process
    return process
