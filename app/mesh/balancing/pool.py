"""The peers of one service, sorted for picking: by version where a rule shares them out, then by zone.

    Pool ── Group (a version and its share) ── Cell (own zone) ── live, out, due
                                            └─ Cell (other zones)
            Group (the rest) ── …

Made anew when the table or a rule changes; who is in and who is out is moved between a cell's lists as it happens, at
a constant price, so that a pick never has to look past those that are out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.mesh.balancing.endpoint import Endpoint
from app.mesh.balancing.strategies import Strategy, ranked
from app.mesh.registry.rules import Rule

_RANKED = 4
_KEYS_KEPT = 4096


class Cell:
    """Peers that are chosen from alike.

    Attributes:
        live: those that are in.
        due: those that are out and may be probed now.
    """

    __slots__ = ("_ranks", "due", "live", "out", "peers")

    def __init__(self, peers: Sequence[Endpoint]) -> None:
        self.peers = tuple(peers)
        self.live: list[Endpoint] = []
        self.out: dict[Endpoint, None] = {}
        self.due: list[Endpoint] = []
        self._ranks: dict[str, list[Endpoint]] = {}
        for peer in self.peers:
            self.enter(peer)

    def __repr__(self) -> str:
        return f"<Cell {len(self.live)} in, {len(self.out)} out>"

    def enter(self, peer: Endpoint) -> None:
        peer.at = len(self.live)
        self.live.append(peer)
        self.out.pop(peer, None)
        self.not_due(peer)

    def leave(self, peer: Endpoint) -> None:
        # The last one takes its place: no list is searched or shifted.
        last = self.live.pop()
        if last is not peer:
            self.live[peer.at] = last
            last.at = peer.at
        peer.at = -1
        self.out[peer] = None

    def not_due(self, peer: Endpoint) -> None:
        if peer in self.due:
            self.due.remove(peer)

    def ranking(self, key: str) -> list[Endpoint]:
        """The best few for `key`, in or out, best first."""
        ranking = self._ranks.get(key)
        if ranking is None:
            if len(self._ranks) >= _KEYS_KEPT:
                self._ranks.clear()
            ranking = self._ranks[key] = ranked(self.peers, key, _RANKED)
        return ranking

    def set_shares(self, ramp: Callable[[Endpoint], float]) -> None:
        """Each peer's share, relative to the greatest; `ramp` tells how much of its weight one gets now, 0 to 1."""
        for peer in self.peers:
            peer.share = peer.weight * ramp(peer)
        greatest = max((peer.share for peer in self.peers), default=1.0)
        for peer in self.peers:
            peer.share /= greatest


@dataclass(slots=True)
class Group:
    """Peers with a share of the traffic of their own.

    Args:
        version: empty for those that no rule names.
        share: 0 to 1.
        cells: those of the own zone first; one or two.
        replaced: whether the others have its share now, because it has nobody who is in.
    """

    version: str
    share: float
    cells: tuple[Cell, ...]
    replaced: bool = False

    @property
    def is_live(self) -> bool:
        return any(cell.live for cell in self.cells)

    @property
    def is_broken(self) -> bool:
        """Whether somebody is out for failures, and not only left alone for a moment."""
        return any(peer.is_broken for cell in self.cells for peer in cell.out)

    def stay_share(self, spill: float) -> float:
        """How much of the traffic stays in the own zone."""
        near = self.cells[0]
        if len(self.cells) == 1:
            return 1.0
        return min(1.0, len(near.live) / (spill * len(near.peers)))

    def ordered(self, draw: float, spill: float) -> tuple[Cell, ...]:
        """Its cells, that which this request goes to first. `draw`: in [0, 1)."""
        return self.cells if draw < self.stay_share(spill) else self.cells[::-1]


@dataclass(slots=True)
class Pool:
    """All ready peers of one service, or those of one of its sandboxes.

    Args:
        only: the one cell, where neither versions nor zones have to be chosen between: the usual case.
        home: the cell of each peer.
        tend_at: when (monotonic seconds) silence, slow start and the ends of ejections have to be looked after next.
    """

    service: str
    groups: tuple[Group, ...]
    strategy: Strategy
    only: Cell | None = field(init=False, default=None)
    home: dict[Endpoint, Cell] = field(init=False)
    tend_at: float = 0.0
    warming: set[Endpoint] = field(default_factory=set)
    panicking: bool = False

    def __post_init__(self) -> None:
        self.home = {peer: cell for cell in self.cells() for peer in cell.peers}
        if len(self.groups) == 1 and len(self.groups[0].cells) == 1:
            self.only = self.groups[0].cells[0]

    def __repr__(self) -> str:
        return f"<Pool {self.service}: {', '.join(map(repr, self.cells()))}>"

    @property
    def is_live(self) -> bool:
        return any(group.is_live for group in self.groups)

    def cells(self) -> Iterator[Cell]:
        for group in self.groups:
            yield from group.cells

    def group(self, draw: float) -> Group:
        """The group whose turn it is by the shares. `draw`: in [0, 1)."""
        for group in self.groups:
            draw -= group.share
            if draw < 0:
                return group
        return self.groups[-1]


def build(service: str, peers: Sequence[Endpoint], rule: Rule | None, zone: str, strategy: Strategy) -> Pool:
    """Sort `peers`, of whom there is at least one."""
    shares = _shares(peers, rule)
    groups = [
        Group(version, share, _cells([peer for peer in peers if _group(peer, shares) == version], zone))
        for version, share in shares.items()
        if share > 0
    ]
    return Pool(service, tuple(groups), strategy)


def _group(peer: Endpoint, shares: Mapping[str, float]) -> str:
    return peer.instance.version if peer.instance.version in shares else ""


def _shares(peers: Sequence[Endpoint], rule: Rule | None) -> dict[str, float]:
    """Share by version, of those that have peers, summing up to 1; the rest is under the empty name.

    A version with a share of 0 gets nothing as long as there is anybody else.
    """
    named = dict(rule.shares) if rule is not None else {}
    named = {version: share for version, share in named.items() if version}
    versions = {peer.instance.version for peer in peers}
    shares = {version: share for version, share in named.items() if version in versions}
    if versions - named.keys():
        # An absent version's share falls to the rest; so does what the rule leaves open.
        shares[""] = max(0.0, 1.0 - sum(shares.values()))
    total = sum(shares.values())
    if total <= 0:
        return dict.fromkeys(shares, 1.0 / len(shares))
    return {version: share / total for version, share in shares.items()}


def _cells(peers: Sequence[Endpoint], zone: str) -> tuple[Cell, ...]:
    near = [peer for peer in peers if peer.instance.zone == zone]
    if not zone or not near or len(near) == len(peers):
        return (Cell(peers),)
    return (Cell(near), Cell([peer for peer in peers if peer.instance.zone != zone]))
