"""The one place that opens and closes what a process works with, and introduces the rooms to one another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.data import Database
from app.errors import PlatformError
from app.mesh import Mesh, open_mesh
from app.service import Service
from app.settings import Settings
from app.telemetry import MeshMetrics, Metrics

# Nobody waits long for Redis: what needs it goes on without, and says so.
_REDIS_TIMEOUT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Resources:
    """What one process of a service works with."""

    settings: Settings
    service: Service
    redis: Redis
    database: Database | None
    mesh: Mesh
    metrics: Metrics

    async def checks(self) -> dict[str, bool]:
        """What readiness depends on: not draining, and the own database answers."""
        checks = {"accepting": self.mesh.instance.state == "ready"}
        if self.database is not None:
            checks["database"] = await _answers(self.database)
        return checks


@asynccontextmanager
async def open_resources(
    settings: Settings, service: Service, *, url: str, metrics: Metrics, openapi_digest: str = ""
) -> AsyncIterator[Resources]:
    """Open everything that `service` needs; closed in the reverse order, also when opening fails half-way.

    Args:
        url: where peers reach this process.
        metrics: this process's own.
        openapi_digest: changes when the API does.
    """
    async with AsyncExitStack() as stack:
        redis_url = settings.redis_url.get_secret_value()
        redis = Redis.from_url(
            redis_url,
            socket_timeout=_REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        stack.push_async_callback(redis.aclose)
        database = None
        if service.models is not None:
            database = Database(settings.database_url_of(service.name), settings.data)
            stack.push_async_callback(database.close)
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
                observer=MeshMetrics(metrics),
                cache_file=settings.data_dir / "cache" / f"{service.name}.json",
                in_flight=_in_flight(metrics),
            )
        )
        yield Resources(settings, service, redis, database, mesh, metrics)


def _in_flight(metrics: Metrics) -> Callable[[], int]:
    return lambda: metrics.in_flight.value


async def _answers(database: Database) -> bool:
    try:
        await database.ping()
    except PlatformError:
        return False
    return True
