"""What came of a run of requests: an immutable list, cut into spans and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from app.lab import figures

# Writes down what a test has counted, for the summary of the run.
Note = Callable[[object], None]


class Outcome(NamedTuple):
    """One request.

    Args:
        number: which one of its kind; the world never gives one twice.
        due: when it was to be sent, in seconds of ``time.monotonic``, which all processes of a machine share.
        seconds: from then until the last byte of its answer, or until it failed.
        status: 0 if there was no answer.
        fault: why there was none, or what was wrong with it; empty if it is as it was asked for.
        reused: whether it went over a connection that had carried one before.
    """

    kind: str
    number: int
    due: float
    seconds: float
    status: int
    fault: str
    reused: bool = False

    @property
    def ended(self) -> float:
        return self.due + self.seconds

    def __str__(self) -> str:
        return f"{self.kind} {self.fault or self.status}"


# The caller itself gave it up: neither good nor bad.
CANCELLED = "cancelled"


@dataclass(frozen=True)
class Journal:
    """Outcomes in the order of their `due`."""

    outcomes: tuple[Outcome, ...]

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Journal:
        return cls(tuple(sorted(outcomes, key=lambda outcome: outcome.due)))

    def __len__(self) -> int:
        return len(self.outcomes)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __str__(self) -> str:
        """As in ``1200 requests: 960 user 200, 240 order 201; p50 4 ms, p99 21 ms``."""
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts().items()))
        return f"{len(self)} requests: {counts}; p50 {self.ms(50):.0f} ms, p99 {self.ms(99):.0f} ms"

    # Spans and parts.

    def where(self, condition: Callable[[Outcome], bool]) -> Journal:
        return Journal(tuple(outcome for outcome in self.outcomes if condition(outcome)))

    def between(self, begin: float, end: float) -> Journal:
        """Those that were due in ``[begin, end)``."""
        return self.where(lambda outcome: begin <= outcome.due < end)

    def of_kind(self, *kinds: str) -> Journal:
        return self.where(lambda outcome: outcome.kind in kinds)

    # What is wrong with them.

    @property
    def failed(self) -> Journal:
        return self.where(lambda outcome: outcome.fault not in ("", CANCELLED))

    @property
    def cancelled(self) -> Journal:
        return self.where(lambda outcome: outcome.fault == CANCELLED)

    @property
    def answered(self) -> Journal:
        return self.where(lambda outcome: outcome.fault == "")

    def slower_than(self, seconds: float) -> Journal:
        return self.where(lambda outcome: outcome.seconds > seconds)

    # Figures.

    def counts(self) -> Counter[str]:
        """How many of each kind ended in each way, as in ``{"user 200": 960}``."""
        return Counter(str(outcome) for outcome in self.outcomes)

    def seconds(self, percent: float) -> float:
        """The time that `percent` % of them do not exceed; failures count with the time that they took."""
        return figures.percentile(sorted(outcome.seconds for outcome in self.outcomes), percent)

    def ms(self, percent: float) -> float:
        return self.seconds(percent) * 1000

    def buckets(self, width_seconds: float) -> list[Journal]:
        """Spans of equal length, by `due`; an empty one where nothing was due."""
        if not self.outcomes:
            return []
        first = self.outcomes[0].due
        parts: dict[int, list[Outcome]] = {}
        for outcome in self.outcomes:
            parts.setdefault(int((outcome.due - first) / width_seconds), []).append(outcome)
        return [Journal(tuple(parts.get(index, ()))) for index in range(max(parts) + 1)]
