"""What one process works with together with the others: locks, jobs, limits, all over one line to Redis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from app.mesh.coordination.leader import PeriodicJob, Work
from app.mesh.coordination.lease import Held, Lease
from app.mesh.coordination.line import Line
from app.mesh.coordination.lock import mesh_lock
from app.mesh.coordination.rate import Limiter, Rate
from app.mesh.keys import Keys
from app.mesh.observer import NullObserver, Observer

LOCK_SECONDS = 15.0
WAIT_SECONDS = 5.0
JOB_LEASE_SECONDS = 15.0


class Coordination:
    """Makes locks, jobs and limits.

    Args:
        instances: how many processes of this service there are, as far as is known.
    """

    def __init__(
        self, line: Line, keys: Keys, *, observer: Observer | None = None, instances: Callable[[], int] = lambda: 1
    ) -> None:
        self._line, self._keys, self._observer = line, keys, observer or NullObserver()
        self._instances = instances
        self._limiters: dict[tuple[str, Rate], Limiter] = {}

    def __repr__(self) -> str:
        return f"<Coordination over {self._line!r}>"

    def lock(
        self, name: str, *, ttl: float = LOCK_SECONDS, wait: float = WAIT_SECONDS
    ) -> AbstractAsyncContextManager[Held]:
        """``async with coordination.lock("invoices") as held``; see `mesh_lock`."""
        return mesh_lock(name, ttl=ttl, wait=wait, line=self._line, keys=self._keys, observer=self._observer)

    def lease(self, name: str, *, ttl: float = LOCK_SECONDS, holder: str = "") -> Lease:
        """A candidate for the lease of that name, for those who wait for it in their own way; see `Lease`."""
        return Lease(name, ttl_seconds=ttl, line=self._line, keys=self._keys, holder=holder)

    def job(
        self, name: str, work: Work, *, every: float, ttl: float = JOB_LEASE_SECONDS, look: float | None = None
    ) -> PeriodicJob:
        """``async with coordination.job("sweep", sweep, every=60): …``; see `PeriodicJob`."""
        return PeriodicJob(
            name, work=work, every=every, ttl=ttl, look=look, line=self._line, keys=self._keys, observer=self._observer
        )

    def limiter(self, name: str, rate: Rate | str) -> Limiter:
        """The limit of that name and rate, as in ``"100/minute"``; the same one each time."""
        rate = Rate.parse(rate) if isinstance(rate, str) else rate
        found = self._limiters.get((name, rate))
        if found is None:
            found = self._limiters[name, rate] = Limiter(
                name, rate, line=self._line, keys=self._keys, observer=self._observer, instances=self._instances
            )
        return found

    def describe(self) -> dict[str, Any]:
        """Plain facts for the management view."""
        limits = {limiter.name: str(limiter.rate) for limiter in self._limiters.values()}
        return {"redis": "up" if self._line.up else repr(self._line), "limits": limits}
