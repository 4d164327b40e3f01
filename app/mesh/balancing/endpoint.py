"""What this process knows of one instance: its cost, what is in flight there, and whether it is in or out."""

from __future__ import annotations

from math import exp, inf

from app.mesh.balancing import breaker as breakers
from app.mesh.balancing import outlier as outliers
from app.mesh.balancing.breaker import Breaker
from app.mesh.balancing.outlier import Outlier
from app.mesh.registry.record import Instance


class Endpoint:
    """One instance in one generation. Its load is ``cost · (in flight / share + itself)``.

    Args:
        now: monotonic seconds.
        unknown_seconds: its cost until it has answered.
        outlier, breaker: what takes it out; None: nothing does.

    Attributes:
        itself: 1 where the request to come counts; 0 for a peer that has never answered, so that an idle one is free.
        share: its weight, less what slow start withholds, relative to the greatest one beside it; 0 to 1.
        in_flight: requests that have not ended; `waiting`: those of them without an answer yet (a streamed reply's
            body is still in flight after its answer).
        heard_at: when it last answered, or began to have something to answer.
        avoided_until: left alone until then, though nothing is wrong with it.
        warm_from: when its slow start began.
        at: its place in the list of those that are in, -1 while it is out.
    """

    __slots__ = (
        "at",
        "avoided_for",
        "avoided_until",
        "breaker",
        "cost",
        "failing",
        "heard_at",
        "in_flight",
        "instance",
        "itself",
        "observed_at",
        "outlier",
        "picked_at",
        "share",
        "succeeded_at",
        "suspected_at",
        "waiting",
        "warm_from",
        "weight",
    )

    def __init__(
        self,
        instance: Instance,
        now: float,
        *,
        unknown_seconds: float,
        outlier: Outlier | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.instance, self.weight, self.share = instance, instance.weight, 1.0
        self.outlier, self.breaker = outlier, breaker
        self.cost, self.itself, self.failing = unknown_seconds, 0, False
        self.in_flight, self.waiting = 0, 0
        self.observed_at, self.picked_at, self.heard_at, self.suspected_at = now, now, now, -inf
        self.succeeded_at: float | None = None
        self.warm_from = -inf
        self.avoided_until, self.avoided_for = -inf, ""
        self.at = -1

    def __repr__(self) -> str:
        return f"<Endpoint {self.instance.id}, {self.cost * 1000:.1f} ms, {self.in_flight} in flight>"

    # ------------------------------------------------------------------------------------- cost

    def answered(self, seconds: float, now: float, decay_seconds: float) -> None:
        """Finagle's peak EWMA: up at once, down with e^(−Δt/decay). The first answer, also after failures, counts whole."""
        if seconds > self.cost or self.failing or not self.itself:
            self.cost, self.itself, self.failing = seconds, 1, False
        else:
            keep = exp((self.observed_at - now) / decay_seconds)
            self.cost = self.cost * keep + seconds * (1 - keep)
        self.observed_at = now

    def failed(self, seconds: float, now: float) -> None:
        """Not decayed from here: how the peer does when it answers again is all that will count."""
        self.cost, self.itself, self.failing = max(seconds, self.cost if self.itself else 0.0), 1, True
        self.observed_at = now

    def given_up(self, seconds: float, now: float, decay_seconds: float) -> None:
        """Cancelled: it is at least that slow, which may be news; it is not that quick."""
        if self.itself and not self.failing and seconds > self.cost:
            self.answered(seconds, now, decay_seconds)

    def load(self, now: float) -> float:
        """What a request to it would cost, in seconds; the silence of requests in flight counts as their answer would."""
        cost = self.cost
        if self.waiting and now - self.heard_at > cost:
            cost = now - self.heard_at
        return cost * (self.in_flight / self.share + self.itself)

    # ------------------------------------------------------------------------------------- silence

    def silent_seconds(self, now: float) -> float:
        """For how long it has answered nothing, with something in flight."""
        return now - self.heard_at if self.waiting else 0.0

    def silence_allowed(self, policy: outliers.Policy) -> float:
        """How long it may be silent before that is a failure."""
        if self.failing or not self.itself:
            return policy.unknown_silence_seconds
        return max(policy.silence_seconds, policy.silence_costs * self.cost)

    # ------------------------------------------------------------------------------------- in or out

    def is_warming(self, now: float, window_seconds: float) -> bool:
        """Whether it has joined or come back within the last `window_seconds`."""
        return now - self.warm_from < window_seconds

    @property
    def epoch(self) -> int:
        return self.outlier.epoch if self.outlier is not None else 0

    @property
    def generation(self) -> int:
        return self.breaker.generation if self.breaker is not None else 0

    @property
    def is_broken(self) -> bool:
        """Out for its own failures; one that is only avoided is asked after the others, and before these."""
        if self.outlier is not None and self.outlier.state is not outliers.State.IN:
            return True
        return self.breaker is not None and self.breaker.state is not breakers.State.CLOSED

    def returns_at(self, now: float) -> float | None:
        """When it may get a request again: None if it is in, infinite while a probe is to tell."""
        if not self.is_broken:
            return self.avoided_until if self.avoided_until > now else None
        at = max(self.avoided_until, 0.0)
        if self.outlier is not None and self.outlier.state is not outliers.State.IN:
            at = max(at, self.outlier.until if self.outlier.state is outliers.State.OUT else inf)
        if self.breaker is not None:
            at = max(at, self.breaker.opens_at(now))
        return at

    def story(self, now: float) -> str:
        """Why it is out, in words; empty if it is in."""
        outlier, breaker = self.outlier, self.breaker
        if outlier is not None and outlier.state is outliers.State.PROBING:
            return f"ejected, probe out: {outlier.reason}"
        if outlier is not None and outlier.state is outliers.State.OUT:
            return f"ejected, back in {max(0.0, outlier.until - now):.1f} s: {outlier.reason}"
        if breaker is not None and breaker.state is not breakers.State.CLOSED:
            return f"breaker {breaker.story(now)}"
        if self.avoided_until > now:
            return f"avoided for {self.avoided_until - now:.1f} s: {self.avoided_for}"
        return ""
