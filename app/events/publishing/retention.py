"""What has been kept for long enough goes: from the streams, the outbox and the inbox. The relay does it, now and then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app import telemetry
from app.events.observer import EventObserver
from app.events.publishing import trimming
from app.events.publishing.ledger import Ledger
from app.events.publishing.streams import Streams
from app.events.publishing.trimming import Extent

_log = telemetry.log("events.retention")

_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Policy:
    """Look every `interval_seconds`.

    Sent events stay in the outbox for `outbox`, and while somebody has not handled them `patience` times as long. The inbox
    remembers for longer than that: an event that is sent again must find its id there.
    """

    trimming: trimming.Policy
    outbox: timedelta
    patience: int = 3
    interval_seconds: float = 30.0

    @property
    def inbox(self) -> timedelta:
        return self.outbox * (self.patience + 1)


class Retention:
    """Of one service.

    Args:
        clock: monotonic seconds.
        now: the time, with its zone.
    """

    def __init__(
        self,
        policy: Policy,
        ledger: Ledger,
        streams: Streams,
        *,
        observer: EventObserver,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._policy, self._ledger, self._streams, self._observer = policy, ledger, streams, observer
        self._clock, self._now = clock, now
        self._next = clock() + policy.interval_seconds

    async def run_if_due(self) -> None:
        """Raises Unavailable; the next time it is due it goes on."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + self._policy.interval_seconds
        await self.run()

    async def run(self) -> None:
        """Trim the streams, then purge the tables. Raises: Unavailable."""
        extents = await self._streams.extents()
        for partition, extent in enumerate(extents):
            await self._trim(partition, extent)
        await self._purge(extents)

    async def _trim(self, partition: int, extent: Extent) -> None:
        trim = trimming.plan(extent, self._policy.trimming, _ms(self._now()))
        if trim is None:
            return
        gone = await self._streams.trim(partition, trim)
        if gone and trim.unread:
            groups = {name: str(at) for name, at in extent.groups.items()}
            _log.warning("a stream was too long for Redis", stream=partition, events=gone, groups=groups)
            self._observer.noticed("trimmed_unread", self._streams.service, gone)

    async def _purge(self, extents: Sequence[Extent]) -> None:
        now, policy = self._now(), self._policy
        old, too_old = _ms(now - policy.outbox), _ms(now - policy.outbox * policy.patience)
        finished = min((e.finished.batch for e in extents if e.finished is not None), default=old)
        await _all(lambda limit: self._ledger.purge_sent(before_batch=min(old, finished), limit=limit))
        unread = await _all(lambda limit: self._ledger.purge_sent(before_batch=too_old, limit=limit))
        if unread:
            _log.warning("events were never handled and are forgotten", service=self._streams.service, events=unread)
            self._observer.noticed("purged_unread", self._streams.service, unread)
        await _all(lambda limit: self._ledger.purge_handled(before=now - policy.inbox, limit=limit))


async def _all(purge: Callable[[int], Awaitable[int]]) -> int:
    """Call `purge` until it finds nothing more; one batch is one transaction, and others want to write, too."""
    removed, count = 0, _BATCH
    while count == _BATCH:
        count = await purge(_BATCH)
        removed += count
    return removed


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
