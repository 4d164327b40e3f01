"""Front door of one process: one service, one event loop, one entry in the registry.

``serve(settings)`` is what ``mesh run users`` does. Any other ASGI server can do it too:
``MESH_SERVICE=users MESH_PORT=8001 hypercorn --bind 127.0.0.1:8001 app.asgi:app``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import orjson

from app import settings as settings_room
from app import telemetry
from app.errors import Misconfigured
from app.resources import Resources, open_resources
from app.service import GATEWAY, Service, load
from app.settings import Settings
from app.web import server
from app.web.entry import Entry
from app.web.factory import ServiceApp, attach, create_app

# Peers hear within milliseconds that an instance leaves; until then their requests are still served.
NOTICE_SECONDS = 0.5

# What still holds the process up after the drain's own time has this much more.
_WATCHDOG_SECONDS = 5.0

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # nothing is bound here: these are told apart


class Process:
    """One service as an ASGI application, with everything it opens and closes.

    Args:
        service: what is served.
        settings: how.
        url: where peers reach it.
    """

    def __init__(self, service: Service, settings: Settings, url: str) -> None:
        self.service = service
        self.settings = settings
        self.url = url
        self.metrics = telemetry.Metrics(service=service.name)
        self.flask: ServiceApp = create_app(service, settings)
        self.entry = Entry(
            self.flask.asgi_app,
            metrics=self.metrics,
            max_seconds=settings.request_timeout_seconds,
            public=service.name == GATEWAY,
        )
        self.resources: Resources | None = None
        self.flask.while_serving(self._while_serving)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.entry(scope, receive, send)

    async def leave(self) -> None:
        """Stop being called: not ready, out of the registry, and a moment for peers to hear of it."""
        if self.resources is None:
            return
        self.entry.draining = True
        self.resources.mesh.set_state("draining")
        await self.resources.mesh.leave()
        await asyncio.sleep(NOTICE_SECONDS)

    async def _while_serving(self) -> AsyncIterator[None]:
        digest = hashlib.sha256(orjson.dumps(self.flask.api_doc)).hexdigest()[:16]
        async with open_resources(
            self.settings, self.service, url=self.url, metrics=self.metrics, openapi_digest=digest
        ) as resources:
            telemetry.configure(self.settings, service=self.service.name, instance=resources.mesh.instance.id)
            self.resources = resources
            attach(self.flask, resources)
            if self.service.front is not None:
                self.entry.app = self.service.front(self.entry.app, resources)
            await resources.mesh.register()
            yield


def serve(settings: Settings) -> None:
    """Serve ``settings.service`` until SIGTERM or SIGINT; returns when everything is closed.

    Raises:
        Misconfigured: no such service, the address is taken, or its start-up failed.
    """
    server.run(lambda: _serve(settings))


async def _serve(settings: Settings) -> None:
    stop = server.stop_on_signals()
    service = _service_of(settings)
    sock = server.listen(settings.host, settings.port)
    telemetry.configure(settings, service=service.name, instance="")
    process = Process(service, settings, _url(settings, sock.getsockname()[1]))

    async def on_stop() -> None:
        server.end_process_after(NOTICE_SECONDS + settings.drain_seconds + _WATCHDOG_SECONDS)
        await process.leave()

    await server.serve(
        process, sock, stop=stop, drain_seconds=settings.drain_seconds, on_stop=on_stop, on_ready=server.calm_collector
    )


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
