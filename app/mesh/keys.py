"""Redis keys of the mesh, and its data model. This is the only module that spells a key.

All keys of one namespace share one hash tag, so that scripts run on a cluster too: ``{mesh}:head``.

    key                     type    what                                                        bound
    ----------------------  ------  ----------------------------------------------------------  ---------------------
    head                    hash    epoch, seq, mark, beat_ms, swept_ms                         TTL 1 day, five fields
    log                     stream  one entry per real change, id ``<seq>-0``                   TTL 1 day, MAXLEN
    services                set     names of the services with at least one record              TTL 1 day
    svc:<service>           hash    instance id → ``<generation> <record JSON>``                TTL 1 day
    exp:<service>           zset    instance id → end of its lease, ms of Redis's TIME          TTL 1 day
    load:<service>          hash    instance id → ``<ms of the beat> <load JSON>``              TTL 1 day
    left:<service>:<id>     string  generation that left: an older beat cannot bring it back    TTL 2 leases

Every heartbeat renews the day; members within it live by their leases, which ``sweep`` ends. No exemptions.

``epoch`` (random), ``seq`` (of the last change) and ``mark`` (random, of the last change) are fields of one hash,
so that they are lost together or not at all. Every log entry carries the mark before and after it: a stale replica
that was promoted and has counted past what a watcher has seen breaks that chain, where ``seq`` alone would not.
A new epoch starts ``seq`` from the time in ms: beyond every earlier one, so blocked watchers wake up at once.
"""

from __future__ import annotations

from dataclasses import dataclass

RETENTION_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace (``settings.registry.namespace``)."""

    namespace: str

    @property
    def prefix(self) -> str:
        """What every key starts with; scripts derive the keys of the services that they find from it."""
        return f"{{{self.namespace}}}:"

    @property
    def head(self) -> str:
        return f"{self.prefix}head"

    @property
    def log(self) -> str:
        return f"{self.prefix}log"

    @property
    def services(self) -> str:
        return f"{self.prefix}services"

    def records(self, service: str) -> str:
        return f"{self.prefix}svc:{service}"

    def leases(self, service: str) -> str:
        return f"{self.prefix}exp:{service}"

    def loads(self, service: str) -> str:
        return f"{self.prefix}load:{service}"

    def left(self, service: str, instance_id: str) -> str:
        return f"{self.prefix}left:{service}:{instance_id}"
