"""One service's known peers, in order of their ids; a change costs a copy of two tuples and rebuilds nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Self

from app.mesh.registry.record import Instance

_by_id = attrgetter("id")


@dataclass(frozen=True, slots=True)
class Group:
    """Args:
    instances: all of them, sorted by id.
    ready: those that take requests, sorted by id.
    prefixes: how many of them announce each path prefix.
    """

    instances: tuple[Instance, ...] = ()
    ready: tuple[Instance, ...] = ()
    prefixes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, peers: Iterable[Instance]) -> Self:
        """Args: peers: each id once, in any order."""
        instances = tuple(sorted(peers, key=_by_id))
        prefixes: dict[str, int] = {}
        for peer in instances:
            _count(prefixes, peer, 1)
        return cls(instances, tuple(peer for peer in instances if peer.takes_requests), prefixes)

    def find(self, instance_id: str) -> Instance | None:
        at = bisect_left(self.instances, instance_id, key=_by_id)
        found = self.instances[at] if at < len(self.instances) else None
        return found if found is not None and found.id == instance_id else None

    def changed(self, changes: Mapping[str, Instance | None]) -> Self:
        """With these in the place of those with their ids; None: without it."""
        instances, ready, prefixes = list(self.instances), list(self.ready), dict(self.prefixes)
        for instance_id, instance in changes.items():
            before = _put(instances, instance_id, instance)
            _put(ready, instance_id, instance if instance is not None and instance.takes_requests else None)
            _count(prefixes, before, -1)
            _count(prefixes, instance, 1)
        return type(self)(tuple(instances), tuple(ready), prefixes)


def _put(ordered: list[Instance], instance_id: str, instance: Instance | None) -> Instance | None:
    """Returns what stood there before."""
    at = bisect_left(ordered, instance_id, key=_by_id)
    known = at < len(ordered) and ordered[at].id == instance_id
    before = ordered[at] if known else None
    ordered[at : at + known] = () if instance is None else (instance,)
    return before


def _count(prefixes: dict[str, int], instance: Instance | None, step: int) -> None:
    for prefix in instance.prefixes if instance is not None else ():
        prefixes[prefix] = prefixes.get(prefix, 0) + step
        if prefixes[prefix] <= 0:
            del prefixes[prefix]
