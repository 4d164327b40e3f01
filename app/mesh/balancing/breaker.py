"""A circuit breaker: after enough failures it rejects at once, and then lets a few probes find out. No I/O.

            half of the last calls failed or were slow
    CLOSED ───────────────────────────────────────────► OPEN ◄──────────────┐
      ▲                                                  │ its time is over, │ a probe fails, is slow
      │                                                  ▼ somebody asks     │ or does not come back
      └──────────── all probes went well ─────────── HALF_OPEN ──────────────┘

A permit carries the breaker's generation, which grows with every arrow: a result from before it is ignored (a slow
call of the bad time must not end a good one: Polly#217). A permit that is let go of without a result, as when the
caller is cancelled, gives its probe's place back. Being rejected is no failure, and neither is a 4xx.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from types import TracebackType
from typing import Self

from app.errors import CircuitOpen
from app.mesh.balancing.backoff import out_seconds

# While all probes are on their way nobody knows when the next one may go.
_ASK_AGAIN_SECONDS = 1.0


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of Resilience4j's kind of breaker.

    Args:
        ring, window_seconds: what is judged: that many last outcomes, as far as they are no older than that.
        least_calls: fewer are too few to judge.
        failure_share, slow_share: opens at this share of failed, or of slow, calls.
        slow_seconds: from here on a call is slow; infinite by default, because nobody but its operator knows what is
            slow for a service. The mesh sets half of the client's timeout: who has waited that long holds its place
            in every queue on the way, and no second attempt of that length fits into the time left.
        open_seconds, longest_open_seconds: how long it rejects at first, and at most; doubles with every time in the
            same trouble, equally jittered. It is the same trouble if it was closed for less than the longest time.
        probes: how many have to go well.
        half_open_seconds: how long a probe may take before it counts as failed (resilience4j#903: without this, one
            that never ends leaves the breaker half-open for ever).
    """

    ring: int = 50
    window_seconds: float = 10.0
    least_calls: int = 10
    failure_share: float = 0.5
    slow_share: float = 0.5
    slow_seconds: float = inf
    open_seconds: float = 5.0
    longest_open_seconds: float = 60.0
    probes: int = 3
    half_open_seconds: float = 30.0


class Permit:
    """Leave to make one call. Use as a context manager; the first of `succeed`, `fail`, `ignore` counts."""

    __slots__ = ("_breaker", "_generation", "_open")

    def __init__(self, breaker: Breaker, generation: int) -> None:
        self._breaker, self._generation, self._open = breaker, generation, True

    def __repr__(self) -> str:
        return f"<Permit {self._breaker.name}, {'in use' if self._open else 'used'}>"

    def succeed(self, seconds: float) -> None:
        """It went well, in so many seconds."""
        if self._open:
            self._open = False
            self._breaker.record(self._generation, seconds, failed=False)

    def fail(self, seconds: float) -> None:
        """It failed, and through the callee's fault."""
        if self._open:
            self._open = False
            self._breaker.record(self._generation, seconds, failed=True)

    def ignore(self) -> None:
        """It says nothing about the callee: cancelled, rejected, or the caller's own fault."""
        if self._open:
            self._open = False
            self._breaker.let_go(self._generation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self.ignore()


class Breaker:
    """Guards the calls of this process to one callee.

    Args:
        name: of the callee, for people.
        clock: monotonic seconds.
        on_change: told after every arrow of the drawing; called inline, must not raise.
    """

    __slots__ = (
        "_bad",
        "_clock",
        "_closed_at",
        "_late_at",
        "_marks",
        "_on_change",
        "_policy",
        "_probes_out",
        "_probes_well",
        "_rng",
        "_slow",
        "_times",
        "_times_open",
        "_until",
        "generation",
        "name",
        "reason",
        "state",
    )

    def __init__(
        self,
        name: str,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_change: Callable[[Breaker], None] | None = None,
    ) -> None:
        self.name = name
        self._policy = policy or Policy()
        self._clock, self._rng, self._on_change = clock, rng or random.Random(), on_change
        self.state, self.generation, self.reason = State.CLOSED, 0, ""
        self._until, self._closed_at, self._times_open = 0.0, -inf, 0
        self._late_at, self._probes_out, self._probes_well = 0.0, 0, 0
        # The ring: when each call ended, and whether it failed or was slow; how many of each are in it.
        # Lists: at this length they are as quick as a deque, which takes a kilobyte for each of thousands of idle peers.
        self._times: list[float] = []
        self._marks: list[tuple[bool, bool]] = []
        self._bad, self._slow = 0, 0

    def __repr__(self) -> str:
        return f"<Breaker {self.name} {self.story(self._clock())}>"

    def story(self, now: float) -> str:
        """Its state in words, with its figures."""
        if self.state is State.OPEN:
            return f"open, probe in {max(0.0, self._until - now):.1f} s: {self.reason}"
        if self.state is State.HALF_OPEN:
            return f"half open, {self._probes_well} of {self._policy.probes} probes went well, {self._probes_out} out"
        return f"closed, {self._bad} failed and {self._slow} slow of {len(self._times)}"

    # ------------------------------------------------------------------------------------- asking

    def permit(self) -> Permit:
        """Leave to make one call.

        Raises:
            CircuitOpen: not now; its ``retry_after`` says when to ask again.
        """
        if self.state is not State.CLOSED:
            self._admit_probe()
        return Permit(self, self.generation)

    def admit(self) -> int:
        """`permit` without its object, for the balancer's hot path: the generation, to be handed to `record`."""
        if self.state is not State.CLOSED:
            self._admit_probe()
        return self.generation

    def opens_at(self, now: float) -> float:
        """From when on a call will be let through, as far as one can know; 0.0 while it is closed."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.OPEN:
            return self._until
        if self._probes_out + self._probes_well < self._policy.probes:
            return now
        return self._late_at

    def _admit_probe(self) -> None:
        now = self._clock()
        if self.state is State.HALF_OPEN:
            self.tend(now)
        if self.state is State.OPEN:
            if now < self._until:
                raise self._rejection(self._until - now)
            self._half_open()
        if self._probes_out + self._probes_well >= self._policy.probes:
            raise self._rejection(_ASK_AGAIN_SECONDS)
        if not self._probes_out:
            self._late_at = now + self._policy.half_open_seconds
        self._probes_out += 1

    def _rejection(self, seconds: float) -> CircuitOpen:
        return CircuitOpen(f"{self.name}: circuit breaker {self.story(self._clock())}", retry_after=seconds)

    # ------------------------------------------------------------------------------------- answering

    def record(self, generation: int, seconds: float, *, failed: bool) -> None:
        """The result of a call that was let through in `generation`."""
        if generation != self.generation:
            return
        now, slow = self._clock(), seconds >= self._policy.slow_seconds
        if self.state is State.HALF_OPEN:
            self._probed(now, failed=failed, slow=slow)
            return
        self._keep(now, failed, slow)
        if failed or slow:
            self._judge(now)

    def let_go(self, generation: int) -> None:
        """A call that was let through in `generation` ended without a result."""
        if generation == self.generation and self.state is State.HALF_OPEN:
            self._probes_out -= 1

    def tend(self, now: float) -> None:
        """Open again if a probe has been away for too long; `permit` does it by itself."""
        # Only while one is out: with nobody asking there is nothing bad about being half-open.
        if self.state is State.HALF_OPEN and self._probes_out and now >= self._late_at:
            self._open(now, "a probe did not come back")

    def _probed(self, now: float, *, failed: bool, slow: bool) -> None:
        self._probes_out -= 1
        if failed or slow:
            self._open(now, "a probe failed" if failed else "a probe was slow")
            return
        self._probes_well += 1
        if self._probes_well >= self._policy.probes:
            self._close(now)

    def _keep(self, now: float, failed: bool, slow: bool) -> None:
        times, policy = self._times, self._policy
        times.append(now)
        self._marks.append((failed, slow))
        self._bad += failed
        self._slow += slow
        while len(times) > policy.ring or times[0] <= now - policy.window_seconds:
            times.pop(0)
            failed, slow = self._marks.pop(0)
            self._bad -= failed
            self._slow -= slow

    def _judge(self, now: float) -> None:
        policy, calls = self._policy, len(self._times)
        if calls < policy.least_calls:
            return
        if self._bad >= policy.failure_share * calls:
            self._open(now, f"{self._bad} of {calls} calls failed")
        elif self._slow >= policy.slow_share * calls:
            self._open(now, f"{self._slow} of {calls} calls took {policy.slow_seconds:g} s or more")

    # ------------------------------------------------------------------------------------- the arrows

    def _open(self, now: float, reason: str) -> None:
        policy = self._policy
        same_trouble = now - self._closed_at < policy.longest_open_seconds or self.state is State.HALF_OPEN
        self._times_open = self._times_open + 1 if same_trouble else 0
        self._until = now + out_seconds(policy.open_seconds, policy.longest_open_seconds, self._times_open, self._rng)
        self.reason = reason
        self._turn(State.OPEN)

    def _half_open(self) -> None:
        self._probes_out, self._probes_well = 0, 0
        self._turn(State.HALF_OPEN)

    def _close(self, now: float) -> None:
        self._closed_at, self.reason = now, ""
        self._turn(State.CLOSED)

    def _turn(self, state: State) -> None:
        self.state = state
        self.generation += 1
        # What was before an arrow is no argument after it.
        self._times.clear()
        self._marks.clear()
        self._bad = self._slow = 0
        if self._on_change is not None:
            self._on_change(self)
