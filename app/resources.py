"""The one place that opens and closes what a process works with, and introduces the rooms to one another."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from redis.asyncio import Redis

from app import redis_client
from app.auth.assembly import Auth, open_auth
from app.auth.issuer import Send
from app.data import Database
from app.errors import PlatformError
from app.events.assembly import Surroundings, open_events
from app.mesh import Mesh, open_mesh
from app.mesh.cache import Cache, open_cache
from app.mesh.coordination import Board, Coordination, open_board, open_line
from app.mesh.keys import Keys
from app.service import GATEWAY, IDENTITY, Service
from app.settings import Settings
from app.telemetry import EventMetrics, MeshMetrics, Metrics

# Nobody waits long for Redis: what needs it goes on without, and says so.
_REDIS_TIMEOUT_SECONDS = 0.25

# The board on which identity says which sessions have ended.
REVOKED_SESSIONS = "revoked-sessions"
_ISSUER_SECONDS = 5.0


class Admission(Protocol):
    """Whoever decides how many requests are served at once."""

    @property
    def limit(self) -> int:
        """So many at most; read from the presence thread."""

    def explain(self) -> dict[str, Any]:
        """How it stands, in plain values."""


class Described(Protocol):
    """A room that can tell an operator how it stands."""

    def describe(self) -> dict[str, Any]:
        """Plain values."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one process of a service works with."""

    settings: Settings
    service: Service
    redis: Redis
    database: Database | None
    mesh: Mesh
    metrics: Metrics
    observer: MeshMetrics
    cache: Cache
    coordination: Coordination
    auth: Auth
    revoked_sessions: Board
    admission: Admission | None = None
    # What the management view shows besides, by the name that it has there.
    rooms: Mapping[str, Described] = field(default_factory=dict)

    async def checks(self) -> dict[str, bool]:
        """What readiness depends on: not draining, and the own database answers."""
        checks = {"accepting": self.mesh.instance.state == "ready"}
        if self.database is not None:
            checks["database"] = await _answers(self.database)
        return checks


@asynccontextmanager
async def open_resources(
    settings: Settings,
    service: Service,
    *,
    url: str,
    metrics: Metrics,
    openapi_digest: str = "",
    admission: Admission | None = None,
) -> AsyncIterator[Resources]:
    """Open everything that `service` needs; closed in the reverse order, also when opening fails half-way.

    Args:
        url: where peers reach this process.
        metrics: this process's own.
        openapi_digest: changes when the API does.
        admission: its limit is announced; None if there is none.
    """
    observer = MeshMetrics(metrics)
    async with AsyncExitStack() as stack:
        redis_url = settings.redis_url.get_secret_value()
        redis = redis_client.open_async(redis_url, timeout_seconds=_REDIS_TIMEOUT_SECONDS)
        stack.push_async_callback(redis.aclose)
        database = None
        if service.models is not None:
            database = Database(settings.database_url_of(service.name), settings.data, read_url=settings.read_url)
            stack.push_async_callback(database.close)
            metrics.follow_database(database)
        mesh = await stack.enter_async_context(
            open_mesh(
                redis=redis,
                redis_url=redis_url,
                settings=settings,
                service=service.name,
                url=url,
                prefixes=service.prefixes,
                version=settings.version,
                openapi_digest=openapi_digest,
                observer=observer,
                cache_file=settings.data_dir / "cache" / f"{service.name}.json",
                in_flight=_in_flight(metrics),
                limit=_limit(admission),
            )
        )
        keys = Keys(settings.registry.namespace)
        # Of its own, since a request may wait for it: shorter timeouts than the registry's.
        line = await stack.enter_async_context(
            open_line(redis_url, timeout_seconds=settings.cache.redis_timeout_seconds)
        )
        coordination = Coordination(line, keys, observer=observer, instances=_replicas(mesh, service.name))
        watch = redis_client.open_watch(redis_url, block_seconds=settings.cache.watch_seconds)
        cache = await stack.enter_async_context(
            open_cache(line=line, watch=watch, keys=keys, settings=settings.cache, observer=observer)
        )
        watch = redis_client.open_watch(redis_url, block_seconds=settings.cache.watch_seconds)
        board = await stack.enter_async_context(
            open_board(REVOKED_SESSIONS, line=line, watch=watch, keys=keys, block_seconds=settings.cache.watch_seconds)
        )
        auth = await stack.enter_async_context(
            open_auth(
                settings.auth,
                service=service.name,
                issuer=IDENTITY,
                send=_to_issuer(mesh),
                keys_file=settings.data_dir / "cache" / f"{service.name}.jwks",
            )
        )
        board.listen(auth.revocations.heard)
        # The gateway hands on what its clients say of themselves, and nothing of its own.
        mesh.credentials = auth.outbound if service.name != GATEWAY else None
        around = Surroundings(
            service=service.name, me=mesh.instance.id, members=_ready(mesh, service.name), redis_url=redis_url, keys=keys,
            coordination=coordination, invalidate=cache.invalidate, drain_seconds=settings.drain_seconds,
        )  # fmt: skip
        events = await stack.enter_async_context(
            open_events(
                settings.events,
                around,
                database,
                outbox=service.outbox,
                # What everybody's requests have caused is not for the processes of one sandbox to handle.
                handlers=service.handlers if settings.sandbox is None else None,
                observer=EventMetrics(metrics),
            )
        )
        rooms: dict[str, Described] = {
            "calls": mesh, "cache": cache, "coordination": coordination, "events": events, "auth": auth,
            "revoked_sessions": board,
        }  # fmt: skip
        if database is not None:
            rooms["database"] = database
        yield Resources(
            settings, service, redis, database, mesh, metrics, observer, cache, coordination, auth, board, admission,
            rooms,
        )  # fmt: skip


def _to_issuer(mesh: Mesh) -> Send:
    async def send(method: str, path: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        # A token that was made twice does no harm, so any of these may be repeated.
        reply = await mesh.request(
            method, IDENTITY, path, content=content or None, headers=headers, timeout=_ISSUER_SECONDS,
            idempotency_key=uuid.uuid4().hex,
        )  # fmt: skip
        return reply.status, reply.body

    return send


def _in_flight(metrics: Metrics) -> Callable[[], int]:
    return lambda: metrics.in_flight.value


def _limit(admission: Admission | None) -> Callable[[], int]:
    return lambda: 0 if admission is None else admission.limit


def _ready(mesh: Mesh, service: str) -> Callable[[], list[str]]:
    return lambda: [each.id for each in mesh.directory.ready(service) if each.sandbox is None]


def _replicas(mesh: Mesh, service: str) -> Callable[[], int]:
    return lambda: max(1, len(mesh.directory.ready(service)))


async def _answers(database: Database) -> bool:
    try:
        await database.ping()
    except PlatformError:
        return False
    return True
