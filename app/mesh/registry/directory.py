"""The local list of peers, kept current by a watch; reading it costs a dictionary look-up and never waits.

One task does everything in turn: snapshot, then ``XREAD BLOCK`` on a connection of its own until the next poll is
due, then the poll of (epoch, seq, mark). A change arrives by the watch at once; whatever the watch may miss, the poll
finds: an update can be late, never lost. Another task looks after suspects. What is decided stands in `view`, what is
done about it stands here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Protocol, Self

import redis.asyncio

from app import telemetry
from app.errors import Unavailable
from app.mesh.keys import Keys
from app.mesh.observer import DirectoryChange, Observer, RegistryContact
from app.mesh.registry import operations, view
from app.mesh.registry.change import Change
from app.mesh.registry.diskcopy import DiskCopy
from app.mesh.registry.examiner import Examiner
from app.mesh.registry.inquiry import Inquiry
from app.mesh.registry.operations import Position, Wish
from app.mesh.registry.reading import Reader
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule
from app.mesh.registry.runner import Registry
from app.mesh.registry.view import Key, Table, Update, View
from app.settings import RegistrySettings

_log = telemetry.log("mesh.directory")

_POLL_JITTER = 0.2
_BACKOFF_SECONDS = (0.1, 2.0)
_SAVE_APART_SECONDS = 1.0
_CANCEL_AGAIN_SECONDS = 0.1

Source = Literal["snapshot", "watch", "disk", "grace"]
Listener = Callable[[Table], None]


class News(Protocol):
    """Whoever wants to hear more than the table."""

    def progress_wanted(self, instances: int, /) -> None:
        """Somebody may be waiting to hear how far this directory has come: a peer drains, and is not offered any more,
        or history broke off. `instances`: how many there are in all, who may be saying so at the same time."""

    def wish_heard(self, key: Key, wish: Wish, /) -> None:
        """An operator wants something of an instance."""


def longest_block_seconds(settings: RegistrySettings) -> float:
    """How long a read of the watch may block: until the latest next poll."""
    return settings.poll_seconds * (1 + _POLL_JITTER)


class Directory:
    """All known peers. Use as an async context manager; entering takes the first snapshot and never fails.

    Args:
        registry: answers polls.
        watch: a client that this directory owns and closes, with a timeout above `longest_block_seconds`.
        watched: the same keys over `watch`.
        inquiry: finds out about suspects.
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
        inquiry: Inquiry,
        disk: DiskCopy | None = None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._registry, self._watched, self._watch = registry, watched, watch
        self._settings, self._observer, self._disk = settings, observer, disk
        self._reader = Reader(settings.allowed_networks)
        self._examiner = Examiner(inquiry, settings=settings, observer=observer, clock=clock)
        self._listeners, self._news = tuple(listeners), list[News]()
        self._clock, self._rng = clock, rng or random.Random()
        self._view, self._table, self._applied = View(), Table(), Position()
        self._lost_rules: tuple[Rule, ...] = ()
        self._healthy_since: float | None = None
        self._heard_at: float | None = None
        self._away_reported = False
        self._next_poll = 0.0
        self._unsaved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        contact = "healthy" if self.healthy else "registry away"
        suspects = len(self._view.suspects)
        return f"<Directory {len(self._view)} peers, {suspects} suspect, seq {self._view.position.seq}, {contact}>"

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
    def table(self) -> Table:
        """Everything that requests read, as of now."""
        return self._table

    @property
    def suspects(self) -> tuple[str, ...]:
        """The ids of those that the registry does not vouch for any more, sorted."""
        return tuple(sorted(instance_id for _, instance_id in self._view.suspects))

    @property
    def healthy(self) -> bool:
        """Whether the registry answered last time."""
        return self._healthy_since is not None

    @property
    def age_seconds(self) -> float | None:
        """How long ago the registry last answered: how old what is believed may be; None if it never has."""
        return None if self._heard_at is None else self._clock() - self._heard_at

    @property
    def position(self) -> Position:
        """The last change that this directory, and whoever listens to it, has applied. May be read from any thread."""
        return self._applied

    @property
    def view(self) -> View:
        """What is believed, as of now."""
        return self._view

    @property
    def healthy_since(self) -> float | None:
        """Since when (monotonic seconds) the registry has answered; None while it is away."""
        return self._healthy_since

    def drop(self, keys: Sequence[Key]) -> None:
        """Forget suspects of whom the evidence says that they are gone."""
        self._adopt(view.drop(self._view, keys), "grace")

    def inform(self, news: News) -> None:
        """Tell `news` from now on what is more than the table."""
        self._news.append(news)

    # ------------------------------------------------------------------------------------- life

    async def __aenter__(self) -> Self:
        try:
            await self._take_snapshot()
        except Unavailable as error:
            self._lost(error)
            await self._recall()
        self._tasks.append(asyncio.create_task(self._follow(), name="mesh.directory"))
        self._tasks.append(asyncio.create_task(self._examiner.watch_over(self), name="mesh.suspects"))
        if self._disk is not None:
            self._tasks.append(asyncio.create_task(self._keep_saved(self._disk), name="mesh.diskcopy"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancelled(self._tasks)
        await self._watch.aclose()
        if self._disk is not None and self._unsaved.is_set():
            await self._save(self._disk)

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
        self._heard_at = self._clock()
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
        await self._restore_rules()
        self._forget_routes()

    async def _catch_up(self, position: Position) -> None:
        """The watch is behind, or history broke off; the log tells which, and a snapshot settles it."""
        known = self._view.position
        if position.epoch == known.epoch and position.seq > known.seq:
            await self._take_changes(await self._watched.changes(known.seq, block_seconds=0.001))
            if self._view.position.seq >= position.seq:
                return
        await self._take_snapshot()

    async def _take_snapshot(self) -> None:
        # Over the watch's connection: a snapshot of ten thousand may take longer than a request would wait for Redis.
        snapshot = await self._watched.snapshot()
        self._found()
        peers, rules = await self._reader.entries(snapshot.entries), self._reader.rules(snapshot.rules)
        self._adopt(view.merge(self._view, snapshot.position, peers, rules, self._clock()), "snapshot")
        self._lost_rules = view.lost_rules(self._view, rules)
        self._tell_progress()

    async def _take_changes(self, changes: Sequence[Change]) -> None:
        updates = [self._reader.update(change) for change in changes]
        following = view.apply(self._view, updates, self._clock())
        if following is None:
            await self._take_snapshot()
            return
        self._adopt(following, "watch")
        self._pass_on(updates)

    def _pass_on(self, updates: Sequence[Update]) -> None:
        """What a change means beyond the table."""
        if any(update.instance is not None and update.instance.state == "draining" for update in updates):
            self._tell_progress()
        for update in updates:
            if update.wish is not None:
                self._tell_wish(update.key, update.wish)
            if update.rule is not None:
                self._lost_rules = tuple(rule for rule in self._lost_rules if rule.service != update.rule.service)
            if update.op == "expired" and update.key in self._view.suspects:
                self._examiner.expired(update.key)

    async def _recall(self) -> None:
        if self._disk is None:
            return
        copy = await asyncio.to_thread(self._disk.load)
        if copy.peers or copy.rules:
            _log.warning("starting from the directory on disk", instances=len(copy.peers))
            self._adopt(view.remembered(copy.peers, copy.rules, self._clock()), "disk")

    async def _restore_rules(self) -> None:
        """Put back what Redis has lost. After a poll: by then another directory may have done it."""
        keys = Keys(self._settings.namespace)
        for rule in self._lost_rules:
            await self._registry.run(operations.restore_rule(keys, self._settings, rule))
        self._lost_rules = ()

    def _forget_routes(self) -> None:
        if any(route.since is not None for route in self._table.routes.values()):
            self._table = view.tabulate(self._view, self._table, self._clock())

    def _adopt(self, following: View, source: Source) -> None:
        before, self._view = self._view, following
        if following.suspects:
            self._examiner.wake()
        if before.groups != following.groups or before.rules != following.rules:
            self._table = view.tabulate(following, self._table, self._clock())
            self._unsaved.set()
            for listener in self._listeners:
                listener(self._table)
            self._observe(source)
        # Only now: whoever drains counts on it that nobody here picks it any more.
        self._applied = following.position

    def _observe(self, source: Source) -> None:
        position, services = self._view.position, len(self._table.instances)
        self._observer.directory_changed(
            DirectoryChange(source, position.epoch, position.seq, services, len(self._view))
        )

    def _tell_progress(self) -> None:
        for news in self._news:
            news.progress_wanted(len(self._view))

    def _tell_wish(self, key: Key, wish: Wish) -> None:
        for news in self._news:
            news.wish_heard(key, wish)

    async def _keep_saved(self, disk: DiskCopy) -> None:
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            await self._save(disk)
            await asyncio.sleep(_SAVE_APART_SECONDS)

    async def _save(self, disk: DiskCopy) -> None:
        await asyncio.to_thread(disk.save, tuple(self._view.everyone()), tuple(self._view.rules.values()))

    # ------------------------------------------------------------------------------------- health of the registry

    def _found(self) -> None:
        self._heard_at = self._clock()
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
