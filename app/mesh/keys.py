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
    seen                    zset    ``<service>:<id>`` → seq that its directory has applied      TTL 1 day
    rules                   hash    service → ``<revision> <rule JSON>``                        TTL 1 day
    left:<service>:<id>     string  generation that left: an older beat cannot bring it back    TTL 2 leases
    wish:<service>:<id>     string  ``<mark> <generation> <state>``: what an operator wants     TTL 2 leases
    cache:val:<key>         string  head (JSON, one line) and bytes of a cached value           TTL: its life
    cache:lock:<key>        string  who loads that value now                                    TTL, seconds
    cache:tag:<tag>         string  the tag's version, random; without it no value counts       TTL: its values' life
    cache:log               stream  one entry per batch of invalidations                        TTL 1 day, MAXLEN
    lock:<name>             string  who holds the lease of that name: ``[<holder> ]<random>``   TTL: the lease
    fence:<name>            string  the last fencing token given with it                        TTL 7 days
    job:<name>              string  lives until that periodic job is due                        TTL: its period
    board:<name>            zset    notice → until when it stands, ms of the epoch              TTL 1 day
    board:<name>:log        stream  one entry per posting                                       TTL 1 day, MAXLEN
    events:<service>:<n>    stream  what a service has published, partition n, id ``<batch>-<row>``  TTL 7 days, trimmed
    wake:<service>          stream  one entry: something was committed, its relay may look       TTL 1 day, MAXLEN 1
    dead:<group>            stream  events that a service could not handle                      TTL 90 days, MAXLEN
    again:<group>:<n>       stream  dead letters that it is to handle again                     TTL 7 days, read once
    next:<group>:<n>        string  who would like to handle that partition                     TTL 3 s
    rate:<name>:<caller>    string  when that caller's bucket will be full, us of Redis's TIME  TTL: until then

Every heartbeat renews the day; members within it live by their leases, which ``sweep`` ends (rules: by an operator's
hand). A wish is renewed by the beats of the instance that it is about, and ends with its generation. No exemptions.

``epoch`` (random), ``seq`` (of the last change) and ``mark`` (random, of the last change) are fields of one hash,
so that they are lost together or not at all. Every log entry carries the mark before and after it: a stale replica
that was promoted and has counted past what a watcher has seen breaks that chain, where ``seq`` alone would not.
A new epoch starts ``seq`` from the time in us: beyond every earlier one, so blocked watchers wake up at once.

A cached value counts only while every version in its head is its tag's present one; invalidating deletes the tag, so
that it stays invalid whatever else is lost, evicted or flushed. A fencing token is the time in us, or one more than the
last: it grows even when ``fence`` is gone. Callers stand in ``rate`` as digests.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, cast

RETENTION_MS = 86_400_000
FENCE_MS = 7 * RETENTION_MS
EVENTS_MS = 7 * RETENTION_MS
DEAD_MS = 90 * RETENTION_MS

# A longer name of the application's own is cut to this, and its digest follows.
_LONGEST_NAME = 200

_EVENT_STREAM = re.compile(r"(?:(events|again):([a-z0-9_]+):(\d{1,4})|(dead):([a-z0-9_]+))")


StreamKind = Literal["events", "again", "dead"]


@dataclass(frozen=True, slots=True)
class EventStream:
    """What the key of a stream of events says.

    Args:
        name: the service that publishes, or the group that is to handle it.
        partition: 0 where there is but one.
    """

    key: str
    kind: StreamKind
    name: str
    partition: int = 0


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

    @property
    def seen(self) -> str:
        return f"{self.prefix}seen"

    @property
    def rules(self) -> str:
        return f"{self.prefix}rules"

    def records(self, service: str) -> str:
        return f"{self.prefix}svc:{service}"

    def leases(self, service: str) -> str:
        return f"{self.prefix}exp:{service}"

    def loads(self, service: str) -> str:
        return f"{self.prefix}load:{service}"

    def left(self, service: str, instance_id: str) -> str:
        return f"{self.prefix}left:{service}:{instance_id}"

    def wish(self, service: str, instance_id: str) -> str:
        return f"{self.prefix}wish:{service}:{instance_id}"

    def cached(self, key: str) -> str:
        return f"{self.prefix}cache:val:{_bounded(key)}"

    def cache_lock(self, key: str) -> str:
        return f"{self.prefix}cache:lock:{_bounded(key)}"

    @property
    def cache_tags(self) -> str:
        """What the key of every tag starts with: scripts find them from the names in a value's head."""
        return f"{self.prefix}cache:tag:"

    @property
    def cache_log(self) -> str:
        return f"{self.prefix}cache:log"

    def lock(self, name: str) -> str:
        return f"{self.prefix}lock:{_bounded(name)}"

    def fence(self, name: str) -> str:
        return f"{self.prefix}fence:{_bounded(name)}"

    def job(self, name: str) -> str:
        return f"{self.prefix}job:{_bounded(name)}"

    def board(self, name: str) -> str:
        return f"{self.prefix}board:{_bounded(name)}"

    def board_log(self, name: str) -> str:
        return f"{self.prefix}board:{_bounded(name)}:log"

    def events(self, service: str, partition: int) -> str:
        return f"{self.prefix}events:{service}:{partition}"

    def wake(self, service: str) -> str:
        return f"{self.prefix}wake:{service}"

    def dead(self, group: str) -> str:
        return f"{self.prefix}dead:{group}"

    def again(self, group: str, partition: int) -> str:
        return f"{self.prefix}again:{group}:{partition}"

    def next_owner(self, group: str, partition: int) -> str:
        return f"{self.prefix}next:{group}:{partition}"

    def rate(self, name: str, caller_digest: str) -> str:
        return f"{self.prefix}rate:{_bounded(name)}:{caller_digest}"

    def partition_lock(self, group: str, partition: int) -> str:
        """Who works on a partition of what `group` hears."""
        return self.lock(partition_lease(group, partition))

    def event_stream(self, key: str) -> EventStream | None:
        """Read the key of a stream of events back; None if it is another one's."""
        found = _EVENT_STREAM.fullmatch(key.removeprefix(self.prefix)) if key.startswith(self.prefix) else None
        if found is None:
            return None
        kind, name, partition, dead, group = found.groups()
        return EventStream(key, cast("StreamKind", dead or kind), name or group, int(partition or 0))


def partition_lease(group: str, partition: int) -> str:
    """The name of the lease of a partition."""
    return f"events:{group}:{partition}"


def _bounded(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    # Longer than any that is left as it is, so that the two kinds never meet.
    return f"{name[:_LONGEST_NAME]}#{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
