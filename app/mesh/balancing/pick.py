"""One request at one peer, in flight until it ends, however it ends."""

from __future__ import annotations

from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from app.mesh.balancing.endpoint import Endpoint
from app.mesh.registry.record import Instance


class Outcome(Enum):
    """What became of a request, as far as it speaks for or against the peer.

    FAILED: the peer's fault: no connection, a 5xx.
    SILENT: its fault, too: no answer in time.
    REJECTED: the peer said that it did nothing (overloaded, draining, misdirected).
    """

    OK = "ok"
    FAILED = "failed"
    SILENT = "silent"
    REJECTED = "rejected"


class Judge(Protocol):
    """Who is told how picks end."""

    def settled(self, pick: Pick, outcome: Outcome | None, /) -> float:
        """The time that it took, in seconds; `outcome` is None if it was given up."""
        ...

    def clock(self) -> float: ...

    def released(self, pick: Pick, /) -> None: ...


class Pick:
    """One request at `peer`. Use as a context manager.

    Leaving the block normally settles it as a success, if `settle` has not yet said what it was. Leaving it by an
    exception (cancelled, or the sender's own fault) says little about the peer: only that it is at least that slow.

    Args:
        epoch, generation: of the peer's ejection and of its breaker when it was picked.
        in_panic: everybody was out, and somebody had to be picked.
        is_probe: what becomes of this request decides whether the peer is back.
    """

    __slots__ = (
        "_judge",
        "_kept",
        "_open",
        "_settled",
        "endpoint",
        "epoch",
        "generation",
        "in_panic",
        "is_probe",
        "peer",
        "started_at",
    )

    def __init__(
        self, judge: Judge, endpoint: Endpoint, now: float, generation: int, *, is_probe: bool, in_panic: bool
    ) -> None:
        self._judge, self.endpoint = judge, endpoint
        self._open, self._settled, self._kept = True, False, False
        self.peer: Instance = endpoint.instance
        self.started_at = now
        self.epoch, self.generation = endpoint.epoch, generation
        self.is_probe, self.in_panic = is_probe, in_panic

    def __repr__(self) -> str:
        kind = " as a probe" if self.is_probe else " in panic" if self.in_panic else ""
        return f"<Pick {self.peer.id}{kind}, {'in flight' if self._open else 'released'}>"

    @property
    def others_were_answered(self) -> bool:
        """Whether the peer has answered any request of this process since it got this one."""
        return self.endpoint.heard_at > self.started_at

    def settle(self, outcome: Outcome | None = Outcome.OK) -> float:
        """Record what became of it, once; None if it says nothing of the peer. Returns its time so far, in seconds."""
        if self._settled:
            return self._judge.clock() - self.started_at
        self._settled = True
        return self._judge.settled(self, outcome)

    def release(self) -> None:
        """No longer in flight; does nothing the second time."""
        if self._open:
            self._open = False
            self._judge.released(self)

    def keep(self) -> None:
        """Stay in flight beyond the block, for a reply that is still coming; `release` ends it."""
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self._kept:
            self.release()
        if not self._settled:
            self._settled = True
            self._judge.settled(self, None if kind is not None else Outcome.OK)
