"""What a directory believes, as pure values and decisions: no I/O, no clock of its own.

    snapshot ──► merge ─┐                                              left: dropped at once
    log ───────► apply ─┼──► View ──► Table (what the request path reads)
    evidence ──► judge ─┘                                              expired, missing: a suspect, judged by evidence

A peer leaves a view in two ways only: it said so itself, or it is a *suspect* and the evidence says that it is gone.
Suspects are those whose lease has ended (``expired``), and those that the registry no longer names although it never
said why (``missing``: flushed, restored from the past, read from disk); the latter have a whole grace time of contact
with a healthy registry to come back by themselves. Errors and empty answers take nobody out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from app.mesh.registry.change import Op
from app.mesh.registry.group import Group
from app.mesh.registry.operations import Position, Wish
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule

Key = tuple[str, str]

# A path whose last instance has just gone is a 503 (it restarts), not a 404 (it never was).
ROUTE_MEMORY_SECONDS = 300.0
# Whoever left stays gone, also when an older state of Redis still knows it; of so many, since nobody knows them for ever.
_LEFT_REMEMBERED = 1000
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Update:
    """One change of the log, read; what could not be believed is None, and the history moves on over it."""

    position: Position
    prev: str
    op: Op
    key: Key
    instance: Instance | None = None
    rule: Rule | None = None
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class Suspect:
    """Somebody the registry does not vouch for any more, and since when (monotonic seconds)."""

    since: float
    why: Literal["expired", "missing"]


@dataclass(frozen=True, slots=True)
class View:
    """All known peers by service, who of them is under suspicion, who has left, and the services' rules."""

    position: Position = field(default_factory=Position)
    groups: Mapping[str, Group] = field(default_factory=dict)
    suspects: Mapping[Key, Suspect] = field(default_factory=dict)
    left: Mapping[Key, int] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(group.instances) for group in self.groups.values())

    def everyone(self) -> Iterator[Instance]:
        return chain.from_iterable(group.instances for group in self.groups.values())

    def find(self, key: Key) -> Instance | None:
        group = self.groups.get(key[0])
        return group.find(key[1]) if group is not None else None


def remembered(peers: Sequence[Instance], rules: Sequence[Rule], now: float) -> View:
    """A view from a copy on disk: every peer counts as missing until the registry confirms it."""
    known = {(peer.service, peer.id): peer for peer in peers}
    suspects = dict.fromkeys(known, Suspect(now, "missing"))
    return View(groups=_grouped(known), suspects=suspects, rules={rule.service: rule for rule in rules})


def merge(view: View, position: Position, peers: Sequence[Instance], rules: Sequence[Rule], now: float) -> View:
    """A whole snapshot joins the view: it adds and renews; whom it does not name becomes missing, not removed."""
    present = {(p.service, p.id): p for p in peers if p.generation > view.left.get((p.service, p.id), -1)}
    known = {(peer.service, peer.id): peer for peer in view.everyone()}
    absent = {key: peer for key, peer in known.items() if key not in present}
    suspects = {key: view.suspects.get(key) or Suspect(now, "missing") for key in absent}
    groups = {
        service: view.groups[service] if view.groups.get(service) == group else group
        for service, group in _grouped(present | absent).items()
    }
    return View(position, groups, suspects, view.left, _newest(view.rules, rules))


def apply(view: View, updates: Sequence[Update], now: float) -> View | None:
    """The log continues the view; None if it does not (new epoch, gap, another past): take a snapshot."""
    position, history = view.position, []
    for update in updates:
        if update.position.epoch != position.epoch:
            return None
        if update.position.seq <= position.seq:
            continue
        if update.position.seq != position.seq + 1 or update.prev != position.mark:
            return None
        position = update.position
        history.append(update)
    return _played(replace(view, position=position), history, now)


def _played(view: View, history: Sequence[Update], now: float) -> View:
    touched: dict[str, dict[str, Instance | None]] = {}
    suspects, left = dict(view.suspects), view.left
    for update in history:
        service, instance_id = update.key
        changes = touched.get(service, {})
        known = changes[instance_id] if instance_id in changes else view.find(update.key)
        if update.op == "up" and update.instance is not None:
            touched.setdefault(service, {})[instance_id] = update.instance
            suspects.pop(update.key, None)
        elif update.op == "left" and known is not None:
            touched.setdefault(service, {})[instance_id] = None
            left = _remember(left, update.key, known.generation)
            suspects.pop(update.key, None)
        elif update.op == "expired" and known is not None:
            suspects[update.key] = Suspect(now, "expired")
    return replace(
        view,
        groups=_changed(view.groups, touched),
        suspects=suspects,
        left=left,
        rules=_newest(view.rules, [update.rule for update in history if update.rule is not None]),
    )


def _remember(left: Mapping[Key, int], key: Key, generation: int) -> Mapping[Key, int]:
    kept = list(left.items())[1 - _LEFT_REMEMBERED :]
    return {**dict(kept), key: generation}


def drop(view: View, keys: Collection[Key]) -> View:
    """Without these, and without a suspicion of them."""
    touched: dict[str, dict[str, Instance | None]] = {}
    for service, instance_id in keys:
        touched.setdefault(service, {})[instance_id] = None
    suspects = {key: suspect for key, suspect in view.suspects.items() if key not in keys}
    return replace(view, groups=_changed(view.groups, touched), suspects=suspects)


def lost_rules(view: View, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Those that we know and a snapshot with `rules` does not, or only older ones."""
    stored = {rule.service: rule.revision for rule in rules}
    return tuple(rule for rule in view.rules.values() if rule.revision > stored.get(rule.service, 0))


def _grouped(peers: Mapping[Key, Instance]) -> dict[str, Group]:
    services: dict[str, list[Instance]] = {}
    for (service, _), peer in peers.items():
        services.setdefault(service, []).append(peer)
    return {service: Group.of(members) for service, members in services.items()}


def _changed(groups: Mapping[str, Group], touched: Mapping[str, Mapping[str, Instance | None]]) -> Mapping[str, Group]:
    following = {**groups, **{service: groups.get(service, _NOBODY).changed(of) for service, of in touched.items()}}
    return {service: group for service, group in following.items() if group.instances} if touched else groups


_NOBODY = Group()


def _newest(known: Mapping[str, Rule], others: Sequence[Rule]) -> Mapping[str, Rule]:
    newest = dict(known)
    for rule in others:
        if rule.service not in newest or rule.revision > newest[rule.service].revision:
            newest[rule.service] = rule
    return newest if others else known


# ------------------------------------------------------------------------------------------- suspects


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a suspect besides the registry's word, in monotonic seconds.

    Args:
        alive_at: when it last answered one of our requests, or a probe in its own name.
        gone_at: when a probe last found out that it is not there any more.
        asked_at: when it was last probed.
    """

    alive_at: float = _NEVER
    gone_at: float = _NEVER
    asked_at: float = _NEVER


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is gone, and who is to be probed now, the longest unheard first."""

    gone: tuple[Key, ...] = ()
    ask: tuple[Instance, ...] = ()


def judge(
    view: View,
    evidence: Callable[[Instance], Evidence],
    now: float,
    *,
    healthy_since: float | None,
    grace_seconds: float,
    ask_again_seconds: float,
) -> Verdict:
    """What to do about the suspects; nothing at all while the registry is away (`healthy_since` None).

    The latest evidence counts: a suspect that answers stays for as long as it does. Who takes no requests anyway goes
    without further ado.
    """
    if healthy_since is None or not view.suspects:
        return Verdict()
    gone: list[Key] = []
    ask: list[tuple[float, Instance]] = []
    for key, suspect in view.suspects.items():
        if suspect.why == "missing" and now - max(suspect.since, healthy_since) < grace_seconds:
            continue
        peer = view.find(key)
        if peer is None:
            continue
        seen = evidence(peer)
        heard_at = max(seen.alive_at, seen.asked_at)
        if not peer.takes_requests or (seen.gone_at >= suspect.since and seen.gone_at > seen.alive_at):
            gone.append(key)
        elif now - heard_at >= ask_again_seconds:
            ask.append((heard_at, peer))
    return Verdict(tuple(gone), tuple(peer for _, peer in sorted(ask, key=lambda item: item[0])))


# ------------------------------------------------------------------------------------------- the look-up table


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix's service, and since when (monotonic seconds) nobody announces it any more."""

    service: str
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """What the request path reads: dictionaries of immutable tuples, replaced as a whole on every change.

    The tuples of a service that has not changed are the same objects as before, so that whoever precomputes something
    from them can tell by identity what to leave alone.
    """

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
    """The look-up table of `view`; `previous` lends its routes' memory. Costs time per service, not per peer."""
    groups = dict(sorted(view.groups.items()))
    routes = _routes(groups, previous.routes, now)
    return Table(
        instances={service: group.instances for service, group in groups.items()},
        ready={service: group.ready for service, group in groups.items()},
        routes=routes,
        depth=max((prefix.count("/") for prefix in routes), default=0),
        rules={service: rule for service, rule in view.rules.items() if not rule.is_empty},
    )


def _routes(groups: Mapping[str, Group], previous: Mapping[str, Route], now: float) -> dict[str, Route]:
    routes = {
        prefix: Route(route.service, since)
        for prefix, route in previous.items()
        if route.service not in groups and now - (since := _or(route.since, now)) < ROUTE_MEMORY_SECONDS
    }
    # In falling order, so that of two services that announce the same prefix everybody settles on the same one.
    for service in sorted(groups, reverse=True):
        routes |= dict.fromkeys(groups[service].prefixes, Route(service))
    return routes


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
