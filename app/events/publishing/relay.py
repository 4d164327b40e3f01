"""From the outbox to the streams: in the order in which the events were committed, and again whatever a stream has lost.

    due rows ──claim──► a batch, numbered in the database ──append──► streams that end where we believe
                                                                │ it ends elsewhere: flushed, deleted, a stale replica,
                                                                ▼ another relay
                                        everything behind its real end, from the outbox, under the same ids

Nothing is marked after it was sent: a stream's last id says what it has. So a relay that dies at any point is followed by one that
sends exactly the rest, and two relays at once (a lease that was lost unnoticed) add nothing twice. The source of the outbox is
Chris Richardson, "Pattern: Transactional outbox"; that a stream tells what it lacks is ours.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime

import orjson

from app import telemetry
from app.errors import PlatformError, Unavailable
from app.events.observer import EventObserver
from app.events.position import START, Position
from app.events.publishing.ledger import Ledger, Overtaken, Row
from app.events.publishing.outbox import INVALIDATED
from app.events.publishing.retention import Retention
from app.events.publishing.streams import Streams
from app.mesh.coordination import Held

_log = telemetry.log("events.relay")

BATCH = 500
_AGAIN_SECONDS = 0.5

Invalidate = Callable[..., Awaitable[bool]]


class Relay:
    """Sends what is in one service's outbox; `run` belongs into the one process that leads.

    Args:
        invalidate: makes every process forget cached values by their tags; says whether all will hear of it.
        retention: removes what has been kept for long enough.
        check_seconds: how often the streams are looked at while nothing is sent.
        now: the time, with its zone.
    """

    def __init__(
        self,
        ledger: Ledger,
        streams: Streams,
        *,
        invalidate: Invalidate,
        retention: Retention,
        observer: EventObserver,
        check_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger, self._streams, self._retention = ledger, streams, retention
        self._invalidate, self._observer, self._check_seconds, self._now = invalidate, observer, check_seconds, now
        self._due = asyncio.Event()
        # Why events wait; empty while they do not.
        self.trouble = ""
        self._ends: dict[int, Position] = {}
        # The last batch that we know of: whatever is in it or before it is sent, or in doubt.
        self._last: int | None = None
        # Partitions of which we do not know that they hold all that was sent.
        self._doubtful: set[int] = set()

    def __repr__(self) -> str:
        return (
            f"<Relay of {self._streams.service}, {len(self._doubtful)} of {self._streams.partitions} streams in doubt>"
        )

    def wake(self) -> None:
        """Something was committed."""
        self._due.set()

    async def run(self, held: Held) -> None:
        """Send for as long as the lease is ours. Never returns; raises LeaseLost."""
        self._doubt_all()
        while True:
            self._due.clear()
            try:
                held.check()
                await self.step()
                pause = await self._pause()
                self.trouble = ""
            except Overtaken:
                self._doubt_all()
                continue
            except PlatformError as error:
                if held.lost:
                    raise
                _log.warning("events must wait", reason=error.code, detail=error.detail)
                self.trouble = error.detail
                # Whether Redis has carried out the last command is not known.
                self._doubt_all()
                pause = _AGAIN_SECONDS
            await self._wait(pause)

    async def step(self) -> int:
        """Put back what streams have lost, send all that is due, and return how many of those there were."""
        await self._look()
        sent, count = 0, BATCH
        # Fewer than asked for were all; what is committed meanwhile wakes us again.
        while count == BATCH:
            rows = await self._ledger.due(self._now(), BATCH)
            count = len(rows)
            if rows:
                await self._send(rows)
                await self._restore()
            sent += count
        await self._retention.run_if_due()
        return sent

    def _doubt_all(self) -> None:
        self._doubtful = set(range(self._streams.partitions))
        self._ends = dict.fromkeys(self._doubtful, START)
        self._last = None

    async def _look(self) -> None:
        """Find out where the streams end, and put back what is missing."""
        if self._last is None:
            # Before the rest is read: what another relay numbers from now on is noticed with our next batch.
            self._last = await self._ledger.last_batch()
        await self._append({})
        await self._restore()

    async def _send(self, rows: Sequence[Row]) -> None:
        last = self._last or 0
        above = max(last, *(end.batch for end in self._ends.values()))
        batch = max(_ms(self._now()), above + 1)
        claimed = await self._ledger.claim(rows, last=last, batch=batch)
        self._last = batch
        await self._deliver(claimed)

    async def _restore(self) -> None:
        for partition in sorted(self._doubtful):
            restored = 0
            while rows := await self._ledger.sent_after(
                self._ends[partition], partition=partition, partitions=self._streams.partitions, limit=BATCH
            ):
                await self._deliver(rows)
                restored += len(rows)
            self._doubtful.discard(partition)
            if restored:
                _log.info("put back what a stream lacked", stream=partition, events=restored)
                self._observer.noticed("rebuilt", self._streams.service, restored)

    async def _deliver(self, rows: Sequence[Row]) -> None:
        # First this: who has read of a change must not find the old value afterwards.
        tags = _tags(row for row in rows if row.type.endswith(f".{INVALIDATED}"))
        if tags and not await self._invalidate(*tags):
            raise Unavailable("Redis is away: not every process has forgotten what is out of date")
        spread: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            spread[row.slot % self._streams.partitions].append(row)
        await self._append(spread)

    async def _append(self, rows: dict[int, list[Row]]) -> None:
        ends = {p: end for p, end in self._ends.items() if not rows or p in rows}
        for partition, end in (await self._streams.append(ends, rows)).items():
            self._ends[partition] = end.position
            if not end.expected:
                self._doubtful.add(partition)
                continue
            for row in rows.get(partition, ()):
                self._observer.published(row.type, 1)

    async def _pause(self) -> float:
        due = await self._ledger.next_due()
        until_due = self._check_seconds if due is None else (due - self._now()).total_seconds()
        return min(max(0.0, until_due), self._check_seconds)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            return


def _tags(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(tag for row in rows for tag in orjson.loads(row.content)["data"]["tags"]))


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
