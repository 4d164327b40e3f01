"""Ejection: one instance that does badly gets no requests for a while, then exactly one, which decides. No I/O.

          5 failures in a row, or 2 silences, or a success
          rate below 0.8, or no answer for far too long
     IN ──────────────────────────────────────────► OUT ◄───────────────┐
      ▲                                              │ its time is over, │ the probe fails
      │                                              ▼ a request comes   │ or stays silent
      └──────────────── the probe succeeds ──────── PROBING ─────────────┘

After Finagle's failure accrual and Envoy's outlier detection, but with no least number of hosts: it is the balancer
that chooses among all when all are out. A result carries the epoch in which its request was sent, which grows with
every ejection and every return: what was sent before says nothing afterwards. One exception: who is out for its
silence is back as soon as it speaks, to whichever request.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from app.mesh.balancing.backoff import out_seconds

_SLOTS = 6


class State(Enum):
    IN = "in"
    OUT = "out"
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class Policy:
    """Args:
    failures_in_a_row: so many, and it is out.
    silences_in_a_row: or so many without any answer; fewer, since each of them has cost a caller its whole patience.
    success_rate, least_requests, window_seconds: or less success than this in the last window with that many requests.
    silence_seconds, silence_costs: or no answer to anything for the longer of that time and so many times its usual
        cost, while something is in flight: a stopped process, which would otherwise show only by timeouts.
    unknown_silence_seconds: the same for one whose usual cost is not known.
    out_seconds, longest_out_seconds: how long at first, and at most; doubles each time, equally jittered.
    """

    failures_in_a_row: int = 5
    silences_in_a_row: int = 2
    success_rate: float = 0.8
    least_requests: int = 5
    window_seconds: float = 30.0
    silence_seconds: float = 1.0
    silence_costs: float = 10.0
    unknown_silence_seconds: float = 3.0
    out_seconds: float = 5.0
    longest_out_seconds: float = 300.0


class Outlier:
    """Whether one instance is in, judged by its own results alone. Times are monotonic seconds, given by the caller."""

    __slots__ = (
        "_earlier",
        "_ease_at",
        "_failed",
        "_in_a_row",
        "_rng",
        "_silences_in_a_row",
        "_silent",
        "_slot_until",
        "_total",
        "epoch",
        "policy",
        "reason",
        "state",
        "times_out",
        "until",
    )

    def __init__(self, policy: Policy, rng: random.Random) -> None:
        self.policy, self._rng = policy, rng
        self.state, self.epoch, self.until, self.reason = State.IN, 0, 0.0, ""
        # How often it has been out before, eased by successes: the exponent of the next time.
        self.times_out, self._ease_at = 0, 0.0
        self._silent = False
        self._in_a_row = self._silences_in_a_row = 0
        # A window of a few slots: (end, requests, failures) of the earlier ones, and the current one.
        self._earlier: list[tuple[float, int, int]] = []
        self._slot_until, self._total, self._failed = 0.0, 0, 0

    def __repr__(self) -> str:
        return f"<Outlier {self.state.value}, out {self.times_out} times{': ' if self.reason else ''}{self.reason}>"

    # ------------------------------------------------------------------------------------- results

    def succeed(self, epoch: int, now: float) -> bool:
        """A request that was sent in `epoch` has succeeded. Returns whether it is back in by that."""
        if self.state is not State.IN:
            # Of this epoch: the probe, or a request of a panic, which is as good. Of an earlier one: only if it speaks.
            return (epoch == self.epoch or self._silent) and self._return(now)
        self._in_a_row = self._silences_in_a_row = 0
        if now >= self._slot_until:
            self._turn_slot(now)
            self._ease(now)
        self._total += 1
        return False

    def fail(self, epoch: int, now: float, *, silent: bool = False) -> bool:
        """A request that was sent in `epoch` has failed; `silent`: without any answer. Returns whether it is out by it."""
        if epoch != self.epoch:
            return False
        if self.state is not State.IN:
            return self.state is State.PROBING and self._eject(now, "its probe failed")
        if now >= self._slot_until:
            self._turn_slot(now)
        self._in_a_row += 1
        self._silences_in_a_row = self._silences_in_a_row + 1 if silent else 0
        self._total += 1
        self._failed += 1
        return self._judge(now)

    def fall_silent(self, now: float, seconds: float) -> bool:
        """Requests are in flight, and it has not answered any for so long. Returns whether it is out by that."""
        if self.state is State.OUT:
            return False
        self._eject(now, f"no answer for {seconds:.1f} s")
        self._silent = True
        return True

    # ------------------------------------------------------------------------------------- the probe

    def probe(self) -> None:
        """If it is out: a request goes there to find out; no other one until it has come back."""
        if self.state is State.OUT:
            self.state = State.PROBING

    def let_go(self, epoch: int, now: float, *, seconds: float = 0.0) -> None:
        """The probe of `epoch` came back without a verdict: the next may go, in so many seconds."""
        if self.state is State.PROBING and epoch == self.epoch:
            self.state, self.until = State.OUT, now + seconds

    # ------------------------------------------------------------------------------------- the arrows

    def _judge(self, now: float) -> bool:
        policy = self.policy
        if self._in_a_row >= policy.failures_in_a_row:
            return self._eject(now, f"{self._in_a_row} failures in a row")
        if self._silences_in_a_row >= policy.silences_in_a_row:
            return self._eject(now, f"{self._silences_in_a_row} requests in a row without an answer")
        live = [slot for slot in self._earlier if slot[0] > now - policy.window_seconds]
        total = self._total + sum(slot[1] for slot in live)
        failed = self._failed + sum(slot[2] for slot in live)
        if total >= policy.least_requests and total - failed < policy.success_rate * total:
            return self._eject(now, f"{failed} of {total} requests failed within {policy.window_seconds:g} s")
        return False

    def _eject(self, now: float, reason: str) -> bool:
        policy = self.policy
        self.state, self.reason, self._silent = State.OUT, reason, False
        self.until = now + out_seconds(policy.out_seconds, policy.longest_out_seconds, self.times_out, self._rng)
        self.times_out += 1
        self.epoch += 1
        return True

    def _return(self, now: float) -> bool:
        if self._silent:
            # It was not gone, only slow: this time out does not count against it.
            self.times_out -= 1
        self.state, self.reason, self._silent = State.IN, "", False
        self._ease_at = now + self.policy.out_seconds
        self.epoch += 1
        # What was before is no argument any more.
        self._in_a_row = self._silences_in_a_row = 0
        self._earlier.clear()
        self._slot_until, self._total, self._failed = 0.0, 0, 0
        return True

    def _turn_slot(self, now: float) -> None:
        if self._total:
            self._earlier = [*self._earlier[1 - _SLOTS :], (self._slot_until, self._total, self._failed)]
        self._slot_until, self._total, self._failed = now + self.policy.window_seconds / _SLOTS, 0, 0

    def _ease(self, now: float) -> None:
        # Not at every success: one that does well for a second and badly for the next must not look new each time.
        if self.times_out and now >= self._ease_at:
            self.times_out -= 1
            self._ease_at = now + self.policy.out_seconds
