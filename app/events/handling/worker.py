"""One partition of all streams that a service hears, worked on by this process alone for as long as it has the lease.

join ──► inherit what predecessors left ──► take what is new ──► lanes, by key ──► desk ──► ack
           │                                   │ nothing: wait     └ in order within a key
           └──────── group or stream gone ◄────┘
                     (healed: made again, from its beginning)
"""

from __future__ import annotations

import asyncio
import traceback
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from app import telemetry
from app.errors import LeaseLost, PlatformError, Unavailable
from app.events import envelope as envelopes
from app.events.envelope import CloudEvent, Unreadable
from app.events.handling import group as groups
from app.events.handling.desk import Desk
from app.events.handling.group import Delivery, Group
from app.events.handling.handlers import Handlers
from app.events.handling.inbox import Inbox
from app.events.handling.lane import Lanes
from app.events.observer import EventObserver
from app.mesh.registry.directory import cancelled

_log = telemetry.log("events.worker")

TAKE = 64
# Entries that were taken and are not done: as many may be handed to a successor.
MOST_OPEN = 256
_AGAIN_SECONDS = 0.2
_DEFECT_SECONDS = 1.0
_TRACE_LINES = 12


@dataclass(frozen=True, slots=True)
class Item:
    """An entry and what it says; None if it can't be read."""

    delivery: Delivery
    event: CloudEvent | None


class Worker:
    """Use `run` once.

    Args:
        hand_over_seconds: how long what is under way may take when another process is to go on.
        drain_seconds: how long when this one stops.
    """

    def __init__(
        self,
        group: Group,
        handlers: Handlers,
        desk: Desk,
        inbox: Inbox,
        *,
        observer: EventObserver,
        hand_over_seconds: float,
        drain_seconds: float,
    ) -> None:
        self._group, self._handlers, self._desk, self._inbox = group, handlers, desk, inbox
        self._observer = observer
        self._hand_over_seconds, self._drain_seconds = hand_over_seconds, drain_seconds
        self._lanes = Lanes(self._work, most=MOST_OPEN)
        self._joined = False
        self._open: set[tuple[str, str]] = set()
        self._done: dict[str, list[str]] = defaultdict(list)
        self._something_done = asyncio.Event()
        self._flushing = asyncio.Lock()
        # Until we have seen the end of the streams, much of what comes may have been handled before.
        self._catching_up = True

    def __repr__(self) -> str:
        return f"<Worker {self._group!r}, {len(self._lanes)} open>"

    async def run(self, ceding: asyncio.Event, stopping: asyncio.Event) -> None:
        """Work until `ceding` is set and what is under way is done; there is less time for that once `stopping` is set.

        Raises:
            LeaseLost: another process works on the partition.
        """
        acks = asyncio.create_task(self._acknowledge(), name="events.acks")
        try:
            await _until(ceding, self._work_on())
            await self._finish(stopping)
        finally:
            await self._lanes.aclose()
            await cancelled([acks])

    async def _work_on(self) -> None:
        begun = False
        while True:
            try:
                begun = begun or await self._begin()
                await self._lanes.room()
                begun = await self._step()
            except LeaseLost:
                raise
            except Unavailable as error:
                _log.info("events can't be read", reason=error.code, detail=error.detail)
                # What was asked for may have been handed to us nevertheless: it has to be inherited, from ourselves.
                begun = False
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _begin(self) -> bool:
        """Join, and take over what is left; False if the group went meanwhile."""
        made = await self._group.join()
        if made and self._joined:
            self._observer.noticed("healed", self._group.name, made)
        self._joined = True
        self._catching_up = True
        left: list[Delivery] = []
        for stream in self._group.streams:
            after = groups.first()
            while found := await self._group.inherit(stream, after):
                left += found
                after = found[-1].entry
            if found is None:
                return False
        if left:
            self._observer.noticed("inherited", self._group.name, len(left))
            await self._accept(groups.in_order(left))
        return True

    async def _step(self) -> bool:
        """Take what is new, or wait for it; False if the group is gone."""
        taken = await self._group.take(TAKE)
        if taken is None:
            return False
        if taken.deliveries:
            await self._accept(taken.deliveries)
            return True
        self._catching_up = False
        await self._group.wait(taken.ends)
        return True

    async def _accept(self, deliveries: Sequence[Delivery]) -> None:
        new = [delivery for delivery in deliveries if (delivery.stream, delivery.entry) not in self._open]
        items = [Item(delivery, _read(delivery)) for delivery in new if delivery.content]
        known = await self._known(items) if self._catching_up else frozenset()
        for item in items:
            if item.event is not None and (item.event.id in known or not self._handlers.knows(item.event.type)):
                self._acknowledged(item.delivery)
            else:
                self._open.add((item.delivery.stream, item.delivery.entry))
                self._lanes.put(item.event.key if item.event else item.delivery.entry, item)
        if lost := len(new) - len(items):
            _log.error("events were trimmed before they were handled", group=self._group.name, events=lost)
            self._observer.noticed("lost", self._group.name, lost)

    async def _known(self, items: Sequence[Item]) -> frozenset[str]:
        ids = [item.event.id for item in items if item.event is not None]
        return await self._inbox.known(ids) if ids else frozenset()

    async def _work(self, item: Item) -> None:
        while True:
            try:
                await self._handle(item)
                break
            except Exception:  # noqa: BLE001  # a defect of ours must neither lose the event nor end its lane
                _log.exception("an event could not be handled", entry=item.delivery.entry)
                await asyncio.sleep(_DEFECT_SECONDS)
        self._acknowledged(item.delivery)
        self._open.discard((item.delivery.stream, item.delivery.entry))

    async def _handle(self, item: Item) -> None:
        bury = partial(self._bury, item)
        if item.event is None:
            await bury(Unreadable("This is no event"), 0)
        else:
            await self._desk.handle(item.event, bury, deliveries=item.delivery.times)

    async def _bury(self, item: Item, error: Exception, tries: int) -> None:
        while True:
            try:
                await self._group.bury(item.delivery, letter(item, error, tries))
                return
            except Unavailable:  # it stays ours meanwhile; should the lease be lost, we are cancelled
                await asyncio.sleep(_AGAIN_SECONDS)

    def _acknowledged(self, delivery: Delivery) -> None:
        self._done[delivery.stream].append(delivery.entry)
        self._something_done.set()

    async def _acknowledge(self) -> None:
        """Tell Redis what is done: all of it at once, while the answer before is under way."""
        while True:
            await self._something_done.wait()
            try:
                await self._flush()
            except Unavailable:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _flush(self) -> None:
        # One at a time: two would take the same entries, and each would strike out as many.
        async with self._flushing:
            self._something_done.clear()
            for stream, entries in list(self._done.items()):
                while some := entries[:MOST_OPEN]:
                    try:
                        await self._group.ack(stream, some)
                    except Unavailable:
                        # What is not acknowledged is found in the inbox when it comes again.
                        self._something_done.set()
                        raise
                    # Only these: what was done meanwhile stands behind them.
                    del entries[: len(some)]

    async def _finish(self, stopping: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._hand_over_seconds):
                await _until(stopping, self._settle())
            async with asyncio.timeout(self._drain_seconds):
                await self._settle()
        except (TimeoutError, Unavailable) as error:
            _log.info("events are left to the next process", reason=type(error).__name__, open=len(self._lanes))

    async def _settle(self) -> None:
        await self._lanes.empty()
        await self._flush()


def letter(item: Item, error: Exception, tries: int) -> dict[str, str | bytes]:
    """The fields of a dead letter."""
    detail = error.detail if isinstance(error, PlatformError) else str(error)
    trace = traceback.format_exception(error)[-_TRACE_LINES:]
    return {
        "event": item.delivery.content,
        "stream": item.delivery.stream,
        "entry": item.delivery.entry,
        "error": type(error).__name__,
        "detail": detail[:2000],
        "trace": "".join(trace)[-8000:],
        "tries": str(tries),
        "at": datetime.now(UTC).isoformat(),
    }


def _read(delivery: Delivery) -> CloudEvent | None:
    try:
        return envelopes.parse(delivery.content)
    except Unreadable:
        return None


async def _until(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, but no longer than until `event` is set."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(_set(event))
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        await cancelled([working, waiting])


async def _set(event: asyncio.Event) -> None:
    await event.wait()
