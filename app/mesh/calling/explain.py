"""How a call came to its answer: a trace listens while it lasts, and tells it afterwards as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt.

    Args:
        after_seconds: when it began, from the beginning of the call.
        allowed_seconds: how long it might be silent.
        outcome: ``status 200``, or the stable code of an error.
        kind: what that means, as in the table of `retry`.
        then: what followed: ``answer``, ``other peer``, ``any peer``, or ``nothing``, as when it was cancelled.
    """

    number: int
    instance: str
    url: str
    after_seconds: float
    seconds: float
    allowed_seconds: float
    outcome: str
    kind: str
    then: str


@dataclass(frozen=True, slots=True)
class Story:
    """All of a call.

    Args:
        registry: how the list of peers stood: whether the registry answers, and how long ago it last did.
        candidates: who could answer, with scores and states, as the balancer saw them when the call began.
        breaker: the service's, when the call began.
        repetitions_left: the service's budget then.
        allowed_seconds: for the whole call.
        notes: (seconds from the beginning, what else was decided): hedge, fallback, shared flight.
        outcome: ``status 200``, or the stable code of the error that was raised.
    """

    method: str
    service: str
    path: str
    registry: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Mapping[str, Any], ...] = ()
    breaker: str = ""
    repetitions_left: float = 0.0
    allowed_seconds: float = 0.0
    attempts: tuple[Step, ...] = ()
    notes: tuple[tuple[float, str], ...] = ()
    outcome: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Trace:
    """Give it to a call as ``explain=``; ask it for its `story` when the call has ended, well or not."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {"method": "", "service": "", "path": ""}
        self._started_at = 0.0
        self._steps: list[Step] = []
        self._notes: list[tuple[float, str]] = []

    def __repr__(self) -> str:
        return f"<Trace {len(self._steps)} attempts>"

    @property
    def story(self) -> Story:
        steps = sorted(self._steps, key=lambda step: step.after_seconds)
        return Story(**self._facts, attempts=tuple(steps), notes=tuple(self._notes))

    def began(self, now: float, **facts: Any) -> None:
        """The call begins; `facts` are fields of `Story`."""
        self._started_at = now
        self._facts |= facts

    def tried(self, began_at: float, now: float, **facts: Any) -> None:
        """An attempt has ended; `facts` are fields of `Step`."""
        self._steps.append(Step(after_seconds=began_at - self._started_at, seconds=now - began_at, **facts))

    def note(self, now: float, what: str) -> None:
        self._notes.append((now - self._started_at, what))

    def ended(self, now: float, outcome: str) -> None:
        self._facts |= {"outcome": outcome, "seconds": now - self._started_at}


def plain(candidates: Sequence[Any]) -> tuple[Mapping[str, Any], ...]:
    """The balancer's candidates as plain values."""
    return tuple(asdict(candidate) for candidate in candidates)
