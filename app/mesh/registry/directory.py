"""The local list of peers, kept current by a watch; reading it costs a dictionary look-up and never waits.

One task does everything in turn: snapshot, then ``XREAD BLOCK`` on a connection of its own until the next poll is
due, then the poll of (epoch, seq, mark). A change arrives by the watch at once; whatever the watch may miss, the poll
finds: an update can be late, never lost. What is decided stands in `view`, what is done about it stands here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Literal, Self

import redis.asyncio

from app import telemetry
from app.errors import Unavailable
from app.mesh.observer import DirectoryChange, Observer, RegistryContact
from app.mesh.registry import record, view
from app.mesh.registry.diskcopy import DiskCopy
from app.mesh.registry.operations import Change, Entry, Position, Registry
from app.mesh.registry.record import Instance, Load, PoisonedRecord
from app.mesh.registry.view import Table, Update, View
from app.settings import RegistrySettings

_log = telemetry.log("mesh.directory")

_POLL_JITTER = 0.2
_BACKOFF_SECONDS = (0.1, 2.0)
_SAVE_APART_SECONDS = 1.0
_CANCEL_AGAIN_SECONDS = 0.1
_WARNED_AT_MOST = 1000

Source = Literal["snapshot", "watch", "disk", "grace"]
Listener = Callable[[Table], None]


def longest_block_seconds(settings: RegistrySettings) -> float:
    """How long a read of the watch may block: until the latest next poll."""
    return settings.poll_seconds * (1 + _POLL_JITTER)


class Directory:
    """All known peers. Use as an async context manager; entering takes the first snapshot and never fails.

    Args:
        registry: answers snapshots and polls.
        watch: a client that this directory owns and closes, with a timeout above `longest_block_seconds`.
        watched: the same keys over `watch`.
        disk: where the last known peers are kept, if anywhere.
        listeners: called with the new table after every change.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        watched: Registry,
        watch: redis.asyncio.Redis,
        settings: RegistrySettings,
        observer: Observer,
        disk: DiskCopy | None = None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._registry, self._watched, self._watch = registry, watched, watch
        self._settings, self._observer, self._disk = settings, observer, disk
        self._listeners = tuple(listeners)
        self._clock, self._rng = clock, rng or random.Random()
        self._view, self._table = View(), Table()
        self._healthy_since: float | None = None
        self._away_reported = False
        self._next_poll = 0.0
        self._unsaved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._warned: set[tuple[str, str, int]] = set()

    def __repr__(self) -> str:
        peers, missing = len(self._view.peers), len(self._view.missing)
        contact = "healthy" if self.healthy else "registry away"
        return f"<Directory {peers} peers, {missing} missing, seq {self._view.position.seq}, {contact}>"

    # ------------------------------------------------------------------------------------- what requests read

    def instances(self, service: str) -> tuple[Instance, ...]:
        """All known instances of `service`, in any state."""
        return self._table.instances.get(service, ())

    def ready(self, service: str) -> tuple[Instance, ...]:
        """Those that take requests."""
        return self._table.ready.get(service, ())

    def services(self) -> tuple[str, ...]:
        """The names of all services with a known instance, sorted."""
        return tuple(self._table.instances)

    def route(self, path: str) -> str | None:
        """The service that announced the longest prefix of `path`, on borders of segments; None if nobody did.

        It stays known for a while after its last instance has gone: then it is away, and not unknown.
        """
        return self._table.route(path)

    @property
    def healthy(self) -> bool:
        """Whether the registry answered last time."""
        return self._healthy_since is not None

    @property
    def position(self) -> Position:
        """The last change that this directory has applied."""
        return self._view.position

    # ------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        try:
            await self._take_snapshot()
        except Unavailable as error:
            self._lost(error)
            await self._recall()
        self._tasks.append(asyncio.create_task(self._follow(), name="mesh.directory"))
        if self._disk is not None:
            self._tasks.append(asyncio.create_task(self._keep_saved(self._disk), name="mesh.diskcopy"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancelled(self._tasks)
        await self._watch.aclose()
        if self._disk is not None and self._unsaved.is_set():
            await asyncio.to_thread(self._disk.save, list(self._view.peers.values()))

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._step()
                failures = 0
            except Unavailable as error:
                self._lost(error)
                failures += 1
                await asyncio.sleep(backoff_seconds(failures, self._rng))
            except Exception:  # noqa: BLE001  # a defect must not end the watch for the rest of the process's life
                _log.exception("directory step failed")
                await asyncio.sleep(_BACKOFF_SECONDS[1])

    async def _step(self) -> None:
        left = self._next_poll - self._clock()
        if left <= 0 or not self.healthy:
            await self._poll()
            return
        changes = await self._watched.changes(self._view.position.seq, block_seconds=left)
        if changes:
            await self._take_changes(changes)

    async def _poll(self) -> None:
        position = await self._registry.position()
        self._next_poll = self._clock() + self._settings.poll_seconds * self._rng.uniform(
            1 - _POLL_JITTER, 1 + _POLL_JITTER
        )
        if position != self._view.position:
            await self._catch_up(position)
        self._found()
        self._expire()

    async def _catch_up(self, position: Position) -> None:
        """The watch is behind, or history broke off; the log tells which, and a snapshot settles it."""
        known = self._view.position
        if position.epoch == known.epoch and position.seq > known.seq:
            await self._take_changes(await self._watched.changes(known.seq, block_seconds=0.001))
            if self._view.position.seq >= position.seq:
                return
        await self._take_snapshot()

    async def _take_snapshot(self) -> None:
        snapshot = await self._registry.snapshot()
        peers = [peer for entry in snapshot.entries if (peer := self._read_entry(entry)) is not None]
        self._found()
        self._adopt(view.merge(self._view, snapshot.position, peers, self._clock()), "snapshot")

    async def _take_changes(self, changes: Sequence[Change]) -> None:
        following = view.apply(self._view, [self._read_change(change) for change in changes])
        if following is None:
            await self._take_snapshot()
            return
        self._adopt(following, "watch")

    async def _recall(self) -> None:
        if self._disk is None:
            return
        peers = await asyncio.to_thread(self._disk.load)
        if peers:
            _log.warning("starting from the directory on disk", instances=len(peers))
            self._adopt(view.remembered(peers, self._clock()), "disk")

    def _expire(self) -> None:
        now = self._clock()
        kept = view.expire(
            self._view, now, healthy_since=self._healthy_since, grace_seconds=self._settings.lease_seconds
        )
        if kept is not self._view:
            self._adopt(kept, "grace")
        elif any(route.since is not None for route in self._table.routes.values()):
            self._table = view.tabulate(self._view, self._table, now)

    def _adopt(self, following: View, source: Source) -> None:
        before, self._view = self._view.peers, following
        if before == following.peers:
            return
        self._table = view.tabulate(following, self._table, self._clock())
        self._unsaved.set()
        for listener in self._listeners:
            listener(self._table)
        position = following.position
        change = DirectoryChange(source, position.epoch, position.seq, len(self._table.instances), len(following.peers))
        self._observer.directory_changed(change)

    async def _keep_saved(self, disk: DiskCopy) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await asyncio.to_thread(disk.save, list(self._view.peers.values()))
            await asyncio.sleep(_SAVE_APART_SECONDS)

    # ------------------------------------------------------------------------------------- health of the registry

    def _found(self) -> None:
        if self._healthy_since is None:
            self._healthy_since = self._clock()
            self._observer.registry_contact(RegistryContact("directory", healthy=True))
            if self._away_reported:
                _log.info("registry is back")
                self._away_reported = False

    def _lost(self, error: Unavailable) -> None:
        self._healthy_since = None
        if not self._away_reported:
            self._away_reported = True
            _log.warning("registry is away; serving the last known peers", error=str(error), directory=repr(self))
            self._observer.registry_contact(RegistryContact("directory", healthy=False))

    # ------------------------------------------------------------------------------------- reading records

    def _read_entry(self, entry: Entry) -> Instance | None:
        return self._read(entry.service, entry.id, entry.record, entry.load)

    def _read_change(self, change: Change) -> Update:
        key = (change.service, change.id)
        if change.op == "down":
            return Update(change.position, change.prev, key, gone=True, instance=None)
        instance = self._read(change.service, change.id, change.record, b"")
        return Update(change.position, change.prev, key, gone=False, instance=instance)

    def _read(self, service: str, instance_id: str, raw: bytes, raw_load: bytes) -> Instance | None:
        try:
            instance = record.decode(raw, self._settings.allowed_networks)
            if (instance.service, instance.id) != (service, instance_id):
                raise PoisonedRecord("it stands under another instance's name")
        except PoisonedRecord as error:
            self._warn(service, instance_id, raw, str(error))
            return None
        return with_load(instance, raw_load)

    def _warn(self, service: str, instance_id: str, raw: bytes, reason: str) -> None:
        """Once for each poisoned record, not once for each time that it is read."""
        known = (service, instance_id, hash(raw))
        if known in self._warned:
            return
        if len(self._warned) >= _WARNED_AT_MOST:
            self._warned.clear()
        self._warned.add(known)
        _log.warning("poisoned record ignored", peer_service=service[:80], peer_id=instance_id[:160], reason=reason)


def with_load(instance: Instance, raw_load: bytes) -> Instance:
    """`instance` with its load figures; malformed ones count as none, since nothing is decided by them alone."""
    load = Load()
    with contextlib.suppress(PoisonedRecord):
        load = record.decode_load(raw_load)[1]
    return replace(instance, load=load)


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel `tasks` until they have ended.

    Once is not enough: redis-py sends under ``asyncio.wait_for``, which on Python 3.11 loses a cancellation that
    comes in the step in which its inner future is done (python/cpython#86296); the task would then run on for ever.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_SECONDS)


def backoff_seconds(failures: int, rng: random.Random) -> float:
    """Full jitter under a ceiling that doubles with every failure in a row."""
    first, longest = _BACKOFF_SECONDS
    return rng.uniform(first / 2, min(longest, first * 2 ** min(failures, 16)))
