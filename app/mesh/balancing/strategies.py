"""Whom of those that are in: small strategies, each a few lines.

p2c          two are drawn, the one with the lower load wins: cost times requests in flight (Finagle's P2CPeakEwma)
least        two are drawn, the one with fewer requests in flight wins
round_robin  one after the other
rendezvous   the same key goes to the same peer, also after others have come or gone (for keys only)

Weights enter by the draw: the first one is drawn by its share, the opponent enters with its share. So a peer that is
as good as the others gets about its weight's share, whatever the number of peers, and a bad one gets less.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import log
from typing import Protocol

from app.mesh.balancing.endpoint import Endpoint
from app.mesh.balancing.policy import Policy
from app.settings import StrategyName

Random = Callable[[], float]

_DRAWS = 8
_RAREST_TURN = 10.0
_MORE_DRAWS = 2
_SPAN = float(1 << 64)


class Strategy(Protocol):
    def choose(self, peers: Sequence[Endpoint], now: float) -> Endpoint:
        """One of `peers`, of which there is at least one. `now`: monotonic seconds."""
        ...


def strategy_named(name: StrategyName, policy: Policy, random: Random) -> Strategy:
    """A new one. Rendezvous is for keys alone: a request without a key is balanced as by p2c."""
    if name == "least":
        return LeastInFlight(random)
    if name == "round_robin":
        return RoundRobin(random)
    return PowerOfTwo(policy, random)


class PowerOfTwo:
    """The load decides between two. Who has not been picked for a while may win once, so that its cost is renewed."""

    __slots__ = ("_failing_idle_seconds", "_idle_seconds", "_random")

    def __init__(self, policy: Policy, random: Random) -> None:
        self._random = random
        self._idle_seconds, self._failing_idle_seconds = policy.idle_seconds, policy.failing_idle_seconds

    def choose(self, peers: Sequence[Endpoint], now: float) -> Endpoint:
        winner, loser = pair(peers, self._random)
        if winner is loser:
            return winner
        if loser.load(now) < winner.load(now):
            winner, loser = loser, winner
        if loser.failing and len(peers) > 2:
            winner = self._against_others(winner, peers, now)
        if loser.picked_at < now - self._idle_seconds and self._gets_a_turn(loser, winner, now):
            return loser
        return winner

    def _against_others(self, winner: Endpoint, peers: Sequence[Endpoint], now: float) -> Endpoint:
        """To be better than one that fails is no merit: otherwise a slow peer would live on failing ones."""
        for _ in range(_MORE_DRAWS):
            other = by_share(peers, self._random)
            if other.load(now) < winner.load(now):
                winner = other
        return winner

    def _gets_a_turn(self, loser: Endpoint, winner: Endpoint, now: float) -> bool:
        """The loser of many draws, now and then: its cost may be old."""
        if loser.in_flight or loser.picked_at >= winner.picked_at:
            return False
        if loser.failing:
            # Its cost is a penalty, and no measure of how slow it is.
            return loser.picked_at < now - self._failing_idle_seconds
        # The slower it was, the rarer: each turn costs somebody that time.
        rarer = min(_RAREST_TURN, loser.cost / winner.cost) if winner.cost > 0 else _RAREST_TURN
        return loser.picked_at < now - self._idle_seconds * rarer


class LeastInFlight:
    """Fewer requests in flight win, relative to the share."""

    __slots__ = ("_random",)

    def __init__(self, random: Random) -> None:
        self._random = random

    def choose(self, peers: Sequence[Endpoint], now: float) -> Endpoint:
        winner, other = pair(peers, self._random)
        return other if other.in_flight / other.share < winner.in_flight / winner.share else winner


class RoundRobin:
    """One after the other; one with half the share sits out every other round."""

    __slots__ = ("_next", "_random")

    def __init__(self, random: Random) -> None:
        self._random, self._next = random, 0

    def choose(self, peers: Sequence[Endpoint], now: float) -> Endpoint:
        for _ in range(_DRAWS):
            peer = peers[self._next % len(peers)]
            self._next += 1
            if peer.share >= 1.0 or self._random() < peer.share:
                return peer
        return by_share(peers, self._random)


def pair(peers: Sequence[Endpoint], random: Random) -> tuple[Endpoint, Endpoint]:
    """Two different ones; twice the same if there is no other, or the other's share keeps it out."""
    count = len(peers)
    first = int(random() * count)
    one = peers[first]
    if one.share < 1.0 and random() >= one.share:
        one = by_share(peers, random)
        first = peers.index(one)
    if count == 1:
        return one, one
    second = int(random() * (count - 1))
    other = peers[second + (second >= first)]
    if other.share < 1.0 and random() >= other.share:
        return one, one
    return one, other


def by_share(peers: Sequence[Endpoint], random: Random) -> Endpoint:
    """One, with a probability in proportion to its share: by rejection; after some draws by summing up."""
    for _ in range(_DRAWS):
        peer = peers[int(random() * len(peers))]
        if random() < peer.share:
            return peer
    left = random() * sum(peer.share for peer in peers)
    for peer in peers:
        left -= peer.share
        if left < 0:
            return peer
    return peers[-1]


def ranked(peers: Sequence[Endpoint], key: str, many: int) -> list[Endpoint]:
    """The first `many` for `key`, best first: weighted rendezvous hashing (Thaler and Ravishankar 1998).

    A peer that leaves hands its keys to their next ones, one that joins takes its share from all: no other key moves.
    """
    return heapq.nlargest(many, peers, key=lambda peer: _score(peer, key))


def unit(*words: str) -> float:
    """A number in (0, 1) that is the same for the same words in every process."""
    digest = blake2b("\0".join(words).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / _SPAN


def _score(peer: Endpoint, key: str) -> float:
    return -peer.weight / log(unit(key, peer.instance.id))
