"""Who is in the registry, with the age of each heartbeat: one question to Redis, nothing kept."""

from __future__ import annotations

from dataclasses import dataclass

from app.mesh.keys import Keys
from app.mesh.registry import operations, record
from app.mesh.registry.record import Instance, Load
from app.settings import RegistrySettings


@dataclass(frozen=True, slots=True)
class Member:
    """One registered process; `age_seconds` since its last heartbeat, by Redis's clock."""

    instance: Instance
    load: Load
    age_seconds: float
    lease_left_seconds: float


def read(redis_url: str, settings: RegistrySettings) -> tuple[Member, ...]:
    """All members, by service and id; records that may not be believed are left out.

    Raises:
        Unavailable: Redis is away.
    """
    client = operations.BlockingRegistry(operations.blocking_client(redis_url))
    try:
        snapshot = client.run(operations.snapshot(Keys(settings.namespace)))
    finally:
        client.close()
    members = [_member(entry, snapshot.now_ms, settings) for entry in snapshot.entries]
    known = [member for member in members if member is not None]
    return tuple(sorted(known, key=lambda member: (member.instance.service, member.instance.id)))


def _member(entry: operations.Entry, now_ms: int, settings: RegistrySettings) -> Member | None:
    try:
        instance = record.decode(entry.record, settings.allowed_networks)
        beat_ms, load = record.decode_load(entry.load)
    except record.PoisonedRecord:
        return None
    age, left = now_ms - beat_ms, entry.lease_end_ms - now_ms
    return Member(instance, load, age_seconds=max(0, age) / 1000, lease_left_seconds=left / 1000)
