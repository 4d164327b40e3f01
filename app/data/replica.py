"""Whether a read replica is asked: it is left alone for a while after it failed, and then tried with one read first.

             failed                            `REST_SECONDS` later, to the first who asks
asked  ──────────────────▶  left alone  ◀───────────────────────────────────▶  tried
  ▲                                                   failed, or not heard of     │
  └────────────────────────────────── succeeded ──────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable

REST_SECONDS = 5.0


class Replica:
    """The state of one replica; no I/O.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_try: float | None = None
        self.failures = 0

    def __repr__(self) -> str:
        return f"<Replica {self}>"

    def __str__(self) -> str:
        if self._next_try is None:
            return "asked"
        return f"left alone for {max(0.0, self._next_try - self._clock()):.1f} s"

    @property
    def is_asked(self) -> bool:
        """Whether reads go to it."""
        return self._next_try is None

    def permit(self) -> bool:
        """Whether this read may go to it; while it is left alone, the first one after the time is the one that tries."""
        if self._next_try is None:
            return True
        now = self._clock()
        if now < self._next_try:
            return False
        # The next one to try, should this one never be heard of.
        self._next_try = now + REST_SECONDS
        return True

    def succeeded(self) -> None:
        self._next_try = None

    def failed(self) -> None:
        self.failures += 1
        self._next_try = self._clock() + REST_SECONDS
