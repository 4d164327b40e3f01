"""The door: look in this process, else let somebody make the value; invalidate so that every process hears of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

from app.errors import Unavailable
from app.mesh.cache import codec
from app.mesh.cache.entry import Entry
from app.mesh.cache.flights import Flight, Flights, Load
from app.mesh.cache.making import Maker
from app.mesh.cache.plan import Loader, Plan, Seconds, check_key, check_tags, names, seconds
from app.mesh.cache.remote import EVERYTHING, KEY, TAG, Remote
from app.mesh.cache.shelf import Shelf
from app.mesh.cache.writing import Writer
from app.mesh.coordination.watch import Watch
from app.mesh.observer import NullObserver, Observer
from app.mesh.registry.directory import cancelled
from app.settings import CacheSettings

T = TypeVar("T")

# A Redis that has been away for so long may well have told others something; shorter, and it was only slow.
_DOUBT_SECONDS = 1.0


class Found(NamedTuple):
    """A value and its times, in seconds; a negative `fresh_for` means that it is stale."""

    value: Any
    age: float
    fresh_for: float


class Cache:
    """Two tiers: this process, and Redis. Use as an async context manager.

    Args:
        remote: the tier in Redis; without it this process is on its own.
        watch: makes the watch over the log of invalidations, given the listener; started with the first use.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        remote: Remote | None = None,
        watch: Callable[[Shelf], Watch] | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._settings, self._remote = settings, remote
        self._clock, self._rng = clock, rng or random.Random()
        # What others invalidate is not heard before the watch is on.
        self._shelf = Shelf(settings, observer=observer or NullObserver(), clock=clock, watched=remote is None)
        self._local, self._fence = self._shelf.local, self._shelf.fence
        self._tell = self._shelf.tell
        self._flights = Flights(self._fence, spawn=self._spawn)
        self._writer = Writer(self._shelf, remote, spawn=self._spawn)
        self._watch = watch(self._shelf) if watch is not None else None
        self._maker = Maker(
            settings, shelf=self._shelf, remote=remote, announcer=self._writer.announcer, spawn=self._spawn, clock=clock,
            rng=self._rng,
        )  # fmt: skip
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        if remote is not None:
            remote.line.listen(self._line_changed)

    def __repr__(self) -> str:
        return f"<Cache {self._shelf!r}, {self._remote or 'alone'}, {len(self._flights)} loads>"

    @property
    def watched(self) -> bool:
        """Whether this process hears what others invalidate; only then does it keep values that have tags."""
        return self._shelf.watched

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._watch is not None:
            await self._watch.aclose()
        await cancelled(list(self._tasks))
        self._writer.close()

    # ------------------------------------------------------------------------------------- reading

    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Seconds | None = None,
        tags: Collection[str] = (),
        negative: Seconds | None = None,
        stale: Seconds | None = None,
        name: str | None = None,
    ) -> T:
        """The value of `key`: from this process, from Redis, or from `loader`, which then runs once for all who ask.

        Args:
            key: the whole of what the value depends on, as in ``user:7``.
            loader: makes plain data or bytes. None, or raising `NotFound`, is kept as well, for `negative` seconds. It
                gets a time of its own, not that of its first caller, and goes on if all its callers leave: it must not
                use what belongs to one request.
            ttl: how long it is fresh, ± the jitter of the settings.
            tags: by which it can be invalidated, as in ``("user:7",)``.
            stale: how long after that it stands in when the loader fails.
            name: for metrics, one of few; by default the key up to its first colon.

        Returns:
            The value, as JSON gives it back: a tuple has become a list. Nobody else has the same object.

        Raises:
            TypeError: the loader made something that can't be kept.
            Exception: the loader's own.
        """
        entry = self._local.get(key)
        if entry is not None and self._clock() < entry.early:
            self._tell(entry.name, entry.outcome)
            return cast(T, entry.value())
        found = await self.fetch(key, loader, ttl=ttl, tags=tags, negative=negative, stale=stale, name=name)
        return cast(T, found.value)

    async def fetch(
        self,
        key: str,
        loader: Loader,
        *,
        ttl: Seconds | None = None,
        tags: Collection[str] = (),
        negative: Seconds | None = None,
        stale: Seconds | None = None,
        name: str | None = None,
        inline: bool = False,
    ) -> Found:
        """As `get_or_load`, with the value's times.

        Args:
            inline: run the loader in this very task, within its deadline; should that be cancelled, one of those who
                wait runs its own.
        """
        entry = self._local.get(key)
        if entry is None or self._clock() >= entry.early:
            plan = self._plan(key, loader, ttl, tags, negative, stale, name, inline=inline)
            entry = await self._entry(plan, entry)
        else:
            self._tell(entry.name, entry.outcome)
        return self._found(entry)

    async def get(self, key: str, default: Any = None) -> Any:
        """The value of `key` if there is one, without loading; `default` too if it is known that there is nothing."""
        found = await self.peek(key)
        return default if found is None else found.value

    async def peek(self, key: str) -> Found | None:
        """As `get`, with the value's times; None if there is no fresh value, or if there is known to be nothing."""
        entry = self._local.get(key)
        if entry is None or self._clock() >= entry.expires:
            entry = await self._read(key)
        else:
            self._tell(entry.name, entry.outcome)
        if entry is None or entry.payload.negative:
            return None
        return self._found(entry)

    # ------------------------------------------------------------------------------------- writing

    async def set(self, key: str, value: Any, *, ttl: Seconds | None = None, tags: Collection[str] = ()) -> bool:
        """Keep `value` under `key`, whatever was there; loads under way do not overwrite it.

        Returns:
            Whether Redis has it. If not, this process has, and what the others hold is invalidated as soon as Redis is
            back.

        Raises:
            TypeError: it can't be kept.
            ValueError: it is too large.
        """
        payload = codec.encode(value)
        if len(payload.data) > self._settings.max_value_bytes:
            raise ValueError(f"{len(payload.data)} bytes are more than cache.max_value_bytes allows")
        plan = self._plan(key, _nothing, ttl, tags, None, None, None, inline=False)
        # In a task of its own: half of it done would leave the two tiers apart.
        return await asyncio.shield(self._spawn(self._writer.set(self._maker.entry(plan, payload))))

    async def delete(self, key: str) -> bool:
        """Forget `key` everywhere; returns as `invalidate`."""
        return await self._writer.invalidate([KEY + check_key(key)])

    async def invalidate(self, *tags: str) -> bool:
        """Invalidate every value that has one of `tags`, everywhere.

        When this returns, this process serves no such value any more, nor does any load that began before keep one. The
        others follow within milliseconds.

        Returns:
            Whether Redis has heard of it. If not, it will as soon as it is back; until then this process does not
            believe Redis about these tags. That is lost if the process ends before: then the values' time of life
            bounds it.
        """
        return await self._writer.invalidate([TAG + tag for tag in check_tags(tags)])

    async def clear(self) -> bool:
        """Invalidate all there is, everywhere; returns as `invalidate`."""
        return await self._writer.invalidate([TAG + EVERYTHING])

    # ------------------------------------------------------------------------------------- what operators see

    def describe(self) -> dict[str, Any]:
        """Plain facts for the management view: the tiers, and how often which name had which outcome."""
        return {
            "local": {"entries": len(self._local), "bytes": self._local.bytes},
            "redis": "none" if self._remote is None else "up" if self._remote.line.up else "away",
            "invalidations_heard": self.watched,
            "invalidations_unsent": self._writer.unsent,
            "loads_under_way": len(self._flights),
            "outcomes": self._shelf.outcomes(),
        }

    # ------------------------------------------------------------------------------------- inside

    def _plan(
        self, key: str, loader: Loader, ttl: Seconds | None, tags: Collection[str], negative: Seconds | None,
        stale: Seconds | None, name: str | None, *, inline: bool,
    ) -> Plan:  # fmt: skip
        settings = self._settings
        return Plan(
            key=check_key(key), name=self._shelf.short(name or key.partition(":")[0]), loader=loader, tags=check_tags(tags),
            ttl=seconds(ttl, settings.ttl_seconds), negative=seconds(negative, settings.negative_seconds),
            stale=seconds(stale, settings.stale_seconds), inline=inline,
        )  # fmt: skip

    def _found(self, entry: Entry) -> Found:
        now = self._clock()
        return Found(entry.value(), max(0.0, now - entry.made_at), entry.expires - now)

    async def _read(self, key: str) -> Entry | None:
        """What Redis has fresh; not in flight with others, since nobody loads."""
        plan = self._plan(key, _nothing, None, (), None, None, None, inline=False)
        self._start_watch()
        with self._fence.opened() as since:
            entry = await self._maker.read(plan, since)
        if entry is None or self._clock() >= entry.expires:
            self._tell(plan.name, "absent")
            return None
        self._tell(plan.name, "hit_remote")
        return entry

    async def _entry(self, plan: Plan, entry: Entry | None) -> Entry:
        self._start_watch()
        now = self._clock()
        if entry is not None and now < entry.expires:
            return await self._refreshed(plan, entry, now)
        if entry is not None and now < min(entry.retry_at, entry.stale_until):
            self._tell(plan.name, "stale")
            return entry
        while True:
            if (made := await self._flown(plan)) is not None:
                return made

    async def _flown(self, plan: Plan) -> Entry | None:
        """The outcome of the flight under way, or of a new one; None if it has to be asked for again."""
        load = partial(self._maker.make, plan)
        with self._fence.opened() as joined:
            flight = self._flights.under_way(plan.key)
            if flight is None and plan.inline:
                return await self._flights.lead(plan.key, plan.names, load)
            if flight is None:
                return await self._launch(plan, load).outcome()
            entry = await flight.outcome()
            if entry is None:
                return None
            # The value may have more tags than were asked for: what came later must not get what was invalidated.
            if joined != flight.since and self._fence.broken(names(entry.key, entry.tags), flight.since):
                return None
            self._tell(plan.name, "shared")
            return entry

    async def _refreshed(self, plan: Plan, entry: Entry, now: float) -> Entry:
        """A fresh entry, which may be due for an early refresh: in the background, or here and now if inline."""
        due = now >= entry.retry_at and entry.due(now, self._settings.beta, self._rng)
        if not due or self._flights.under_way(plan.key) is not None:
            self._tell(entry.name, entry.outcome)
            return entry
        self._tell(plan.name, "refresh")
        load = partial(self._maker.refresh, plan, entry)
        if plan.inline:
            return await self._flights.lead(plan.key, plan.names, load) or entry
        self._launch(plan, load)
        return entry

    def _launch(self, plan: Plan, load: Load) -> Flight:
        if self._closed:
            raise Unavailable("The cache is closed")
        return self._flights.launch(plan.key, plan.names, load)

    def _line_changed(self, up: bool, /) -> None:
        if not up and not self._closed:
            asyncio.get_running_loop().call_later(_DOUBT_SECONDS, self._doubt)

    def _doubt(self) -> None:
        """What is kept here is believed for as long as invalidations are heard; with Redis away that is not so."""
        if self._watch is not None and self._remote is not None and not self._remote.line.up and not self._closed:
            self._watch.doubt()

    def _start_watch(self) -> None:
        if self._watch is not None:
            self._watch.start()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _nothing() -> None:
    return None
