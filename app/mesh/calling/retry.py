"""What may be tried again, when, and how much of it in all: pure policy, no I/O.

failure                                    idempotent or keyed      any other
-----------------------------------------  -----------------------  -----------------------
unsent (refused, not resolved)             any peer                 any peer
sent, then reset or cut                    any peer                 stop
reply 502, 503, 504, 429 with Retry-After  another peer             stop
deadline, malformed reply, other replies   stop                     stop
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from enum import Enum

from app.errors import MeshError, PeerUnreachable

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_AGAIN_STATUSES = frozenset({502, 503, 504})


class Verdict(Enum):
    """Where the next attempt may go."""

    STOP = "stop"
    OTHER_PEER = "other peer"
    ANY_PEER = "any peer"


@dataclass(frozen=True, slots=True)
class Policy:
    """Args:
    retries: attempts after the first, where the peer may have seen the request.
    unsent_retries: the same where no peer can have seen it; higher, because it costs next to nothing and gets
        past instances that have just been killed.
    """

    retries: int = 1
    unsent_retries: int = 3
    first_seconds: float = 0.025
    longest_seconds: float = 0.25


# For a call on behalf of a request that is itself a repetition: one layer repeats, not each.
ONCE = Policy(retries=0, unsent_retries=0)


def judge(
    policy: Policy, *, number: int, idempotent: bool, error: MeshError | None, status: int, later: bool
) -> Verdict:
    """What follows attempt `number` (1 is the first).

    Args:
        idempotent: by its method, or by an Idempotency-Key.
        error: why there was no reply.
        status: of the reply, if there was one.
        later: whether the reply carried Retry-After.
    """
    if error is not None:
        if not isinstance(error, PeerUnreachable):
            return Verdict.STOP
        if not error.sent:
            return _while(number <= max(policy.unsent_retries, policy.retries) and policy.retries > 0, Verdict.ANY_PEER)
        return _while(idempotent and number <= policy.retries, Verdict.ANY_PEER)
    again = status in _AGAIN_STATUSES or (status == 429 and later)
    return _while(again and idempotent and number <= policy.retries, Verdict.OTHER_PEER)


def _while(condition: bool, verdict: Verdict) -> Verdict:
    return verdict if condition else Verdict.STOP


def backoff_seconds(policy: Policy, number: int, rng: random.Random) -> float:
    """Full jitter (AWS, "Exponential Backoff And Jitter") under a ceiling that doubles: 25, 50, … 250 ms."""
    return rng.uniform(0.0, min(policy.longest_seconds, policy.first_seconds * 2.0 ** min(number - 1, 16)))


class Budget:
    """Retries that one target service gets: a share of its calls and a few per second, over a sliding window.

    After Finagle's ``RetryBudget``: what is not used within the window expires. Counted in slots of one second.
    Times are monotonic seconds, given by the caller, who has just read the clock anyway.
    """

    __slots__ = ("_calls", "_earlier", "_floor", "_retries", "_second", "_share", "_window")

    def __init__(self, *, share: float = 0.2, floor_per_second: float = 10.0, window_seconds: int = 10) -> None:
        self._share, self._floor, self._window = share, floor_per_second, window_seconds
        self._second, self._calls, self._retries = 0, 0, 0
        self._earlier: deque[tuple[int, int, int]] = deque(maxlen=window_seconds)

    def __repr__(self) -> str:
        return f"<Budget {self.left(self._second):.0f} retries left>"

    def deposit(self, now: float) -> None:
        """A call has begun."""
        if now >= self._second + 1:
            self._turn(now)
        self._calls += 1

    def withdraw(self, now: float) -> bool:
        """Whether one retry may be made; if so, it is counted."""
        if now >= self._second + 1:
            self._turn(now)
        if self.left(now) < 1:
            return False
        self._retries += 1
        return True

    def left(self, now: float) -> float:
        """How many retries may be made now."""
        live = [slot for slot in self._earlier if slot[0] > now - self._window]
        calls = self._calls + sum(slot[1] for slot in live)
        retries = self._retries + sum(slot[2] for slot in live)
        return self._share * calls + self._floor * self._window - retries

    def _turn(self, now: float) -> None:
        self._earlier.append((self._second, self._calls, self._retries))
        self._second, self._calls, self._retries = int(now), 0, 0
