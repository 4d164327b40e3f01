"""Puts the rooms of the mesh together, and takes them apart again in the right order."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import redis.asyncio

from app import redis_client
from app.deadline import Deadlines
from app.errors import Misconfigured
from app.mesh.balancing.balancer import Balancer
from app.mesh.balancing.policy import balancer_policy
from app.mesh.calling.client import Mesh
from app.mesh.calling.target import Targets
from app.mesh.calling.transport import AiohttpTransport, GuardedResolver
from app.mesh.keys import Keys
from app.mesh.lag import LoopLag
from app.mesh.observer import NullObserver, Observer
from app.mesh.registry import record
from app.mesh.registry.directory import Directory, longest_block_seconds
from app.mesh.registry.diskcopy import DiskCopy
from app.mesh.registry.inquiry import Inquiry
from app.mesh.registry.membership import Membership
from app.mesh.registry.presence import Presence
from app.mesh.registry.probe import HttpProbe
from app.mesh.registry.record import Instance, Load, PoisonedRecord
from app.mesh.registry.runner import Registry
from app.settings import RegistrySettings, Settings


def new_instance_id(service: str) -> str:
    return f"{service}-{os.urandom(4).hex()}"


@asynccontextmanager
async def open_mesh(
    *,
    redis: redis.asyncio.Redis,
    redis_url: str,
    settings: Settings,
    service: str,
    url: str,
    prefixes: Sequence[str] = (),
    version: str = "",
    openapi_digest: str = "",
    observer: Observer | None = None,
    cache_file: Path | None = None,
    instance_id: str | None = None,
    in_flight: Callable[[], int] = lambda: 0,
    limit: Callable[[], int] = lambda: 0,
) -> AsyncIterator[Mesh]:
    """Open the mesh for one process: on entry it can call, after ``await mesh.membership.register()`` it can be called.

    A Redis that is away is not fatal: the last known peers come from `cache_file`, and it keeps trying.

    Args:
        redis: answers snapshots and polls; stays the caller's.
        redis_url: for the two connections of the mesh's own, the watch and the presence thread.
        url: where peers reach this process.
        in_flight: the number of requests being served, read from the presence thread.
        limit: how many it would serve at once, 0 if unlimited; read from the presence thread.

    Raises:
        Misconfigured: the process's own record would be refused by its peers, or the lease is too short.
    """
    slice_, watcher = settings.registry, observer or NullObserver()
    own = own_instance(
        settings, service, url, prefixes=prefixes, version=version, openapi_digest=openapi_digest, id_=instance_id
    )
    keys = Keys(slice_.namespace)
    policy = balancer_policy(settings.balancing, settings.breaker, timeout_seconds=settings.client.timeout_seconds)
    balancer = Balancer(policy, zone=settings.zone, decide=watcher.decision)
    targets = Targets(settings.client, settings.breaker, watcher)
    async with AsyncExitStack() as stack:
        lag = stack.enter_context(LoopLag())
        deadlines = stack.enter_context(closing(Deadlines()))
        transport = await stack.enter_async_context(
            AiohttpTransport(settings.client, networks=slice_.allowed_networks, deadlines=deadlines)
        )
        probe = await stack.enter_async_context(HttpProbe(GuardedResolver(slice_.allowed_networks)))
        watch = redis_client.open_watch(redis_url, block_seconds=longest_block_seconds(slice_))
        registry = Registry(redis, keys)
        directory = Directory(
            registry=registry,
            watched=Registry(watch, keys),
            watch=watch,
            settings=slice_,
            observer=watcher,
            inquiry=Inquiry(probe, last_success=balancer.last_success),
            disk=DiskCopy(cache_file, slice_.namespace, slice_.allowed_networks) if cache_file else None,
            listeners=(balancer.update, targets.update),
        )
        await stack.enter_async_context(directory)
        presence = Presence(
            own,
            redis_url=redis_url,
            settings=slice_,
            observer=watcher,
            load=lambda: Load(in_flight=in_flight(), limit=limit(), loop_lag_seconds=lag.seconds),
            seen=lambda: directory.position,
        )
        membership = Membership(presence, registry=registry, keys=keys, observer=watcher)
        directory.inform(membership)
        mesh = Mesh(
            directory=directory,
            membership=membership,
            balancer=balancer,
            transport=transport,
            deadlines=deadlines,
            targets=targets,
            settings=settings.client,
            observer=watcher,
        )
        stack.push_async_callback(membership.leave)
        yield mesh


def own_instance(
    settings: Settings,
    service: str,
    url: str,
    *,
    prefixes: Sequence[str],
    version: str,
    openapi_digest: str,
    id_: str | None,
) -> Instance:
    """This process's record, checked as its peers will check it. Raises: Misconfigured."""
    check_times(settings.registry)
    instance = Instance(
        service=service,
        id=id_ or new_instance_id(service),
        generation=time.time_ns() // 1_000_000,
        url=url,
        version=version,
        zone=settings.zone,
        weight=settings.weight,
        sandbox=settings.sandbox,
        state="starting",
        prefixes=tuple(prefixes),
        openapi_digest=openapi_digest,
        pid=os.getpid(),
        started_at=time.time(),
    )
    try:
        return record.decode(record.encode(instance), settings.registry.allowed_networks)
    except PoisonedRecord as error:
        raise Misconfigured(f"Peers would refuse the record of {service} at {url}: {error}") from error


def check_times(settings: RegistrySettings) -> None:
    """Raises: Misconfigured: a lease must outlast two heartbeats, or one late beat reads as an absence."""
    if settings.lease_seconds < 2.2 * settings.heartbeat_seconds:
        raise Misconfigured("registry.lease_seconds must be at least 2.2 times registry.heartbeat_seconds")
