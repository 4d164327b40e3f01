"""How many repetitions one target service gets: a share of its calls and a few per second; pure, no clock of its own."""

from __future__ import annotations


class Budget:
    """One service's retries and hedges over a sliding window, after Finagle's ``RetryBudget``.

    At any time the repetitions of the last `window_seconds` are at most `share` of the calls of that time and
    `floor_per_second` for each of its seconds; what is not used within the window expires. Kept in slots of one
    second. Times are monotonic seconds, given by the caller, who has just read the clock anyway.
    """

    __slots__ = ("_calls", "_floor", "_per_second", "_place", "_second", "_share", "_spent")

    def __init__(self, *, share: float = 0.2, floor_per_second: float = 10.0, window_seconds: int = 10) -> None:
        self._share, self._floor = share, floor_per_second * window_seconds
        # Of each second: its calls and its repetitions; and those of the whole window.
        self._per_second = [[0, 0] for _ in range(window_seconds)]
        self._second, self._place = 0, self._per_second[0]
        self._calls, self._spent = 0, 0

    def __repr__(self) -> str:
        return f"<Budget {self._share * self._calls + self._floor - self._spent:.0f} repetitions left>"

    def deposit(self, now: float) -> None:
        """A call has begun."""
        if now >= self._second + 1:
            self._turn(int(now))
        self._place[0] += 1
        self._calls += 1

    def withdraw(self, now: float) -> bool:
        """Whether one repetition may be made; if so, it is counted."""
        if self.left(now) < 1:
            return False
        self._place[1] += 1
        self._spent += 1
        return True

    def left(self, now: float) -> float:
        """How many repetitions may be made now; below 1 means none."""
        if now >= self._second + 1:
            self._turn(int(now))
        return self._share * self._calls + self._floor - self._spent

    def _turn(self, second: int) -> None:
        seconds = self._per_second
        for late in range(max(self._second + 1, second - len(seconds) + 1), second + 1):
            place = seconds[late % len(seconds)]
            self._calls -= place[0]
            self._spent -= place[1]
            place[:] = (0, 0)
        self._second, self._place = second, seconds[second % len(seconds)]
