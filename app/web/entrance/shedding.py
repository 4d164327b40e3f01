"""The gate before the application: whoever comes while too many wait is told so at once, before Flask is touched.

A slot stands for somebody who waits for an answer *because of us*. So it is taken when a request has come, lent back
while the client makes us wait for its body, and given back when the answer begins: a download or an event stream holds
none, and neither holds up nor falsifies the latency that the limit goes by.

Two signals lower the limit: the latency of answers (`limiter`), and an event loop that is late for longer than a
moment. What has priority ``sheddable`` is refused first, what is ``critical`` last.

At the gateway the limit is fixed: its latency is that of the services behind it, and if one of them is slow, all others
must not be refused for it. Each of them has a limit of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app import telemetry
from app.context import Priority
from app.mesh.observer import Decision, NullObserver, Observer
from app.web.entrance.limiter import Limiter, Policy

# How much of the limit each priority may fill.
_SHARES: dict[Priority, float] = {"critical": 1.2, "normal": 1.0, "sheddable": 0.8}

_LOOK_SECONDS = 0.25
# A loop that has been late at so many looks in a row is not just busy with one burst.
_SUSTAINED_LOOKS = 8
_TELL_SECONDS = 1.0

_log = telemetry.log("web.shedding")


def _no_lag() -> float:
    return 0.0


class Gate:
    """Lets requests in, up to the limit.

    Args:
        policy: of the limit.
        service: whose gate it is.
        max_lag_seconds: an event loop that is later than this is overloaded.
        lag: how late it is now, in seconds; may be set later.
        observer: hears of every refusal; may be set later.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        service: str = "",
        max_lag_seconds: float = 0.5,
        lag: Callable[[], float] = _no_lag,
        observer: Observer | None = None,
    ) -> None:
        self._limiter = Limiter(policy or Policy())
        self._service, self._max_lag_seconds = service, max_lag_seconds
        self.lag, self.observer = lag, observer or NullObserver()
        self.in_flight = 0
        self._next_look, self._late_looks = 0.0, 0
        self.refused, self._untold, self._next_tell = 0, 0, 0.0

    def __repr__(self) -> str:
        return f"<Gate {self.in_flight} in flight, {self.refused} refused, {self._limiter!r}>"

    @property
    def limit(self) -> int:
        """How many may wait for an answer at once, at normal priority."""
        return self._limiter.limit

    def enter(self, priority: Priority, now: float) -> Slot | None:
        """A slot for a request that came at `now` (monotonic seconds); None: refuse it."""
        if now >= self._next_look:
            self._look(now)
        if self.in_flight >= self._limiter.limit * _SHARES[priority]:
            self._refuse("limit", now)
            return None
        if self._late_looks and priority == "sheddable":
            self._refuse("lag", now)
            return None
        return Slot(self, now)

    def sample(self, seconds: float, in_flight: int, now: float, *, cut_off: bool) -> None:
        self._limiter.sample(seconds, in_flight, now, cut_off=cut_off)

    def explain(self) -> dict[str, Any]:
        """Plain values for `/_mesh`."""
        return {
            "limit": self.limit,
            "in_flight": self.in_flight,
            "refused": self.refused,
            "latency_seconds": self._limiter.short_seconds,
            "usual_latency_seconds": self._limiter.long_seconds,
            "loop_lag_seconds": self.lag(),
        }

    def _look(self, now: float) -> None:
        # A quiet time is no time of being late.
        missed, self._next_look = now - self._next_look > _LOOK_SECONDS * _SUSTAINED_LOOKS, now + _LOOK_SECONDS
        self._late_looks = (0 if missed else self._late_looks) + 1 if self.lag() > self._max_lag_seconds else 0
        if self._late_looks >= _SUSTAINED_LOOKS:
            self._limiter.lower(now)

    def _refuse(self, reason: str, now: float) -> None:
        self.refused += 1
        self._untold += 1
        self.observer.decision(Decision("shed", self._service, reason))
        # One line per refusal would cost more than the refusal.
        if now >= self._next_tell:
            self._next_tell = now + _TELL_SECONDS
            _log.warning(
                "requests refused", reason=reason, refused=self._untold, limit=self.limit, in_flight=self.in_flight
            )
            self._untold = 0


class Slot:
    """One request that was let in, until its answer begins."""

    __slots__ = ("_crowd", "_gate", "_lent_at", "_open", "_started")

    def __init__(self, gate: Gate, now: float) -> None:
        gate.in_flight += 1
        self._gate, self._crowd, self._open = gate, gate.in_flight, True
        # Moved forward by the time that the client makes us wait.
        self._started = now
        self._lent_at: float | None = None

    def lend(self, now: float) -> None:
        """From now on the client makes us wait."""
        if self._open and self._lent_at is None:
            self._lent_at = now
            self._gate.in_flight -= 1

    def resume(self, now: float) -> None:
        """It has sent what we waited for. Taken back without asking: what has begun is not refused half-way."""
        if self._open and self._lent_at is not None:
            self._started += now - self._lent_at
            self._lent_at = None
            self._gate.in_flight += 1

    def answered(self, status: int, now: float) -> None:
        """The answer begins; one that failed says nothing of how long good ones take, unless it ran out of time."""
        self._close(now, counts=status < 500 or status == 504, cut_off=status == 504)

    def abandoned(self, now: float) -> None:
        """It ended without an answer, if it has not been answered: the client has gone."""
        self._close(now, counts=True, cut_off=True)

    def _close(self, now: float, *, counts: bool, cut_off: bool) -> None:
        if not self._open:
            return
        self.resume(now)
        self._open = False
        self._gate.in_flight -= 1
        if counts:
            self._gate.sample(now - self._started, self._crowd, now, cut_off=cut_off)
