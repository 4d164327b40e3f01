"""How many requests may wait for an answer at once: Gradient2, made fit to start at its maximum.

After Netflix's concurrency-limits (``limit/Gradient2Limit.java``): the gradient ``tolerance × long / short`` of what
latency usually is and what it is now says whether requests queue up in here; the limit is multiplied by it, and
``queue`` more are allowed. What is different here, and why:

    median      What it is now is the median of the last few. A queue makes all of them late; a tenth that takes seconds
                by its nature would lift an average, and refuse the others for nothing.
    patience    An answer that comes within ``patience_seconds`` is no sign of a queue, whatever the average: or a burst
                to an idle process would end with the minimum.
    baseline    Samples taken near the limit never raise the long average. As Netflix has it, it follows the queue that
                it should tell of, and under lasting overload the limit drifts to its maximum.
    verdict     So a dependency that has become slower looks like a queue. But a queue shrinks with the number that is
                let in: where half as many wait as long as before, the latency is not of our making, and is believed.
    pace        A step is smaller where the limit is high, since samples are late by a whole latency: without it, the
                limit swings between its ends.
    trust       Where nobody has come near the limit for a while, it is the maximum again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How a limiter decides.

    Args:
        maximum, minimum: the bounds of the limit; it starts at the maximum.
        adaptive: False keeps it there.
        patience_seconds: see above.
        smoothing: how far one sample moves the limit towards its new value, up to a limit of `pace`; then less.
        queue: how many may wait beyond what latency says is needed.
        tolerance: so many times the long average is no sign of a queue.
        long_window, short_window: of the long average and of the median, in samples.
        crowd: with fewer than this in flight, and less than half the limit, nothing is concluded.
        trust_seconds: see above.
    """

    maximum: int = 2_000
    minimum: int = 4
    adaptive: bool = True
    patience_seconds: float = 0.25
    smoothing: float = 0.2
    queue: float = 4.0
    tolerance: float = 1.5
    long_window: int = 600
    short_window: int = 11
    crowd: int = 8
    pace: float = 10.0
    trust_seconds: float = 30.0


_WARM_UP_SAMPLES = 10
_STEEPEST = 0.5
# Netflix's: once latency is back to normal, the long average need not lag behind for hundreds of samples.
_LONG_MAY_BE, _LONG_DECAY = 2.0, 0.95
# A queue of half the length takes half the time; a latency that has kept this much of itself was never a queue.
_FEWER, _AS_LONG = 0.5, 0.85
# Until that is known, the limit does not fall further than it takes to find out.
_PROBE = 0.4


class Limiter:
    """The limit of one process. It holds no clock: `now` is monotonic seconds."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._limit = float(policy.maximum)
        self._samples = 0
        self._long = self._short = self._crowd = 0.0
        self._last: deque[tuple[float, int]] = deque(maxlen=policy.short_window)
        # The most in flight for which a queue was suspected, and the latency at that time.
        self._suspicion: tuple[float, float] | None = None
        self._near_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Limiter {self.limit} of {self._policy.maximum}, {self._short:.3f} s, usually {self._long:.3f} s>"

    @property
    def limit(self) -> int:
        return int(self._limit)

    @property
    def long_seconds(self) -> float:
        """The latency that is taken to be without a queue; 0 before the first sample."""
        return self._long

    @property
    def short_seconds(self) -> float:
        """The median latency of the last few."""
        return self._short

    def sample(self, seconds: float, in_flight: int, now: float, *, cut_off: bool = False) -> None:
        """An answer took `seconds`; when its request came there were `in_flight`, itself included.

        Args:
            cut_off: nobody waited for the answer any longer, so it would have taken more than that.
        """
        policy = self._policy
        if not policy.adaptive:
            return
        self._average(seconds, in_flight)
        if self._samples <= _WARM_UP_SAMPLES:
            # No queue has built up before them, and there is nothing else to go by.
            self._learn(seconds)
            return
        allowed = max(policy.patience_seconds, policy.tolerance * self._long)
        slow = self._short > allowed
        near = in_flight >= self._limit / 2 or (slow and in_flight >= policy.crowd)
        if not near or seconds < self._long:
            self._learn(seconds)
        if not slow:
            self._suspicion = None
        elif cut_off and self._suspicion is not None:
            # How long it would have taken with so many is unknown: nothing later is "as long as before".
            self._suspicion = (self._suspicion[0], float("inf"))
        if not near:
            self._trust(now)
            return
        self._near_at = now
        if not (slow and self._is_no_queue()):
            self._step(min(1.0, allowed / self._short) if slow else 1.0, in_flight)

    def lower(self, now: float) -> None:
        """Something else says that it is too much: one step down."""
        self._near_at = now
        if self._policy.adaptive:
            self._limit = max(self._policy.minimum, self._limit * (1 - self._policy.smoothing * _STEEPEST))

    def _average(self, seconds: float, in_flight: int) -> None:
        self._samples += 1
        # Together: the crowd is that of the very answer which is the median.
        self._last.append((seconds, in_flight))
        self._short, self._crowd = sorted(self._last)[len(self._last) // 2]

    def _learn(self, seconds: float) -> None:
        share = 1 / self._samples if self._samples <= _WARM_UP_SAMPLES else 2 / (self._policy.long_window + 1)
        self._long += (seconds - self._long) * share
        if self._long > _LONG_MAY_BE * self._short:
            self._long *= _LONG_DECAY

    def _trust(self, now: float) -> None:
        if now - self._near_at > self._policy.trust_seconds:
            self._limit = float(self._policy.maximum)

    def _is_no_queue(self) -> bool:
        suspected, seconds = self._suspicion or (0.0, 0.0)
        if self._crowd > suspected:
            self._suspicion = (self._crowd, max(self._short, seconds))
            return False
        if self._crowd > suspected * _FEWER:
            return False
        if self._short < seconds * _AS_LONG:
            self._suspicion = (self._crowd, self._short)
            return False
        self._long, self._limit, self._suspicion = self._short, float(self._policy.maximum), None
        return True

    def _step(self, gradient: float, in_flight: int) -> None:
        policy, start, least = self._policy, self._limit, float(self._policy.minimum)
        if self._suspicion is not None:
            # Far above what is in flight, a limit would have to fall for long before it limits anything.
            start, least = min(start, 2.0 * in_flight), max(least, self._suspicion[0] * _PROBE)
        aim = start * max(_STEEPEST, gradient) + policy.queue
        moved = start + policy.smoothing * min(1.0, policy.pace / start) * (aim - start)
        self._limit = min(max(moved, min(least, start)), policy.maximum)
