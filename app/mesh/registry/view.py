"""What a directory believes, as pure values and decisions: no I/O, no clock of its own.

    snapshot ──► merge ─┐
    log ───────► apply ─┼──► View ──► Table (what the request path reads)
    time ──────► expire ┘

A peer leaves a view in two ways only: the registry's unbroken history says so, or it is *missing* (the history broke
off: new epoch, flushed, restored from the past, read from disk) and stays so for a whole grace time of contact with
a healthy registry. Errors and empty answers take nobody out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.mesh.registry.operations import Position
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule

Key = tuple[str, str]

# A path whose last instance has just gone is a 503 (it restarts), not a 404 (it never was).
ROUTE_MEMORY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Update:
    """One change of the log, its record read; `instance` is None for a leave and for a poisoned record."""

    position: Position
    prev: str
    key: Key
    gone: bool
    instance: Instance | None


@dataclass(frozen=True, slots=True)
class View:
    """All known peers by (service, id), and since when (monotonic seconds) some of them are missing."""

    position: Position = field(default_factory=Position)
    peers: Mapping[Key, Instance] = field(default_factory=dict)
    missing: Mapping[Key, float] = field(default_factory=dict)


def remembered(peers: Sequence[Instance], now: float) -> View:
    """A view from a copy on disk: every peer counts as missing until the registry confirms it."""
    known = {(peer.service, peer.id): peer for peer in peers}
    return View(peers=known, missing=dict.fromkeys(known, now))


def merge(view: View, position: Position, peers: Sequence[Instance], now: float) -> View:
    """A whole snapshot joins the view: it adds and renews; whom it does not name becomes missing, not removed."""
    present = {(peer.service, peer.id): peer for peer in peers}
    absent = {key: view.missing.get(key, now) for key in view.peers if key not in present}
    return View(position, present | {key: view.peers[key] for key in absent}, absent)


def apply(view: View, updates: Sequence[Update]) -> View | None:
    """The log continues the view; None if it does not (new epoch, gap, another past): take a snapshot."""
    position = view.position
    peers, missing = dict(view.peers), dict(view.missing)
    for update in updates:
        if update.position.epoch != position.epoch:
            return None
        if update.position.seq <= position.seq:
            continue
        if update.position.seq != position.seq + 1 or update.prev != position.mark:
            return None
        position = update.position
        if update.gone:
            peers.pop(update.key, None)
            missing.pop(update.key, None)
        elif update.instance is not None:
            peers[update.key] = update.instance
            missing.pop(update.key, None)
    return View(position, peers, missing)


def expire(view: View, now: float, *, healthy_since: float | None, grace_seconds: float) -> View:
    """Drop who has been missing for a whole grace time of contact with a healthy registry; None: it is away."""
    if healthy_since is None or not view.missing:
        return view
    over = {key for key, since in view.missing.items() if now - max(since, healthy_since) >= grace_seconds}
    if not over:
        return view
    return replace(
        view,
        peers={key: peer for key, peer in view.peers.items() if key not in over},
        missing={key: since for key, since in view.missing.items() if key not in over},
    )


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix's service, and since when (monotonic seconds) nobody announces it any more."""

    service: str
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """What the request path reads: dictionaries of immutable tuples, replaced as a whole on every change."""

    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)
    ready: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    depth: int = 0
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def route(self, path: str) -> str | None:
        """The service with the longest announced prefix of `path`, on borders of segments; None if there is none.

        Looks only as deep as the deepest prefix, so that a path of a million slashes costs no more than another.
        """
        routes, best = self.routes, None
        end = path.find("/", 1)
        for _ in range(self.depth):
            best = routes.get(path if end < 0 else path[:end], best)
            if end < 0:
                break
            end = path.find("/", end + 1)
        return best.service if best is not None else None


def tabulate(view: View, previous: Table, now: float) -> Table:
    """The look-up table of `view`; `previous` lends its routes' memory."""
    instances: dict[str, list[Instance]] = {}
    for key in sorted(view.peers):
        instances.setdefault(key[0], []).append(view.peers[key])
    routes = _routes(instances, previous.routes, now)
    return Table(
        instances={service: tuple(peers) for service, peers in instances.items()},
        ready={service: tuple(p for p in peers if p.takes_requests) for service, peers in instances.items()},
        routes=routes,
        depth=max((prefix.count("/") for prefix in routes), default=0),
    )


def _routes(instances: Mapping[str, Sequence[Instance]], previous: Mapping[str, Route], now: float) -> dict[str, Route]:
    routes = {
        prefix: Route(route.service, since)
        for prefix, route in previous.items()
        if route.service not in instances and now - (since := _or(route.since, now)) < ROUTE_MEMORY_SECONDS
    }
    # In falling order, so that of two services that announce the same prefix everybody settles on the same one.
    for service in sorted(instances, reverse=True):
        routes |= {prefix: Route(service) for peer in instances[service] for prefix in peer.prefixes}
    return routes


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
