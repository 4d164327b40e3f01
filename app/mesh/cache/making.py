"""How a value comes about when this process has no fresh one: from Redis, from another process's load, or by loading."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from app import context, deadline, telemetry
from app.errors import DeadlineExceeded, NotFound, PlatformError, Unavailable
from app.mesh.cache import codec
from app.mesh.cache.announcer import Announcer
from app.mesh.cache.codec import Payload
from app.mesh.cache.entry import Entry
from app.mesh.cache.plan import Keep, Plan, Uncached
from app.mesh.cache.remote import TAG, Claim, Mode, Remote, Stored, new_word
from app.mesh.cache.shelf import Shelf
from app.settings import CacheSettings

_log = telemetry.log("mesh.cache")

# Between two looks at what another process is loading: growing, jittered.
_LOOK_SECONDS = (0.005, 0.1)

# Of one name: what fails for one key fails for thousands.
_WARN_APART_SECONDS = 5.0


class Maker:
    """Makes entries; see the package for how it fits in."""

    def __init__(
        self,
        settings: CacheSettings,
        *,
        shelf: Shelf,
        remote: Remote | None,
        announcer: Announcer,
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._settings, self._shelf, self._remote, self._announcer = settings, shelf, remote, announcer
        self._spawn, self._clock, self._rng = spawn, clock, rng
        self._warned: dict[str, float] = {}

    async def make(self, plan: Plan, since: int) -> Entry:
        """A value that is fresh, or stale if it can't be had otherwise.

        Args:
            since: the fence's moment at which this began.

        Raises:
            Exception: the loader's own, if nothing stands in for it.
        """
        claim = await self._claimed(plan, known="")
        if claim is not None and claim.stored is not None:
            entry = self._take(plan, claim.stored, since)
            self._shelf.tell(plan.name, "negative" if entry.payload.negative else "hit_remote")
            return entry
        return await self._made(plan, claim, since)

    async def refresh(self, plan: Plan, at_hand: Entry, since: int) -> Entry | None:
        """As `make`, while `at_hand` is still fresh; None if another process is doing it."""
        claim = await self._claimed(plan, known=at_hand.stamp or "?")
        if claim is not None and claim.stored is not None:
            return self._take(plan, claim.stored, since)
        if claim is not None and claim.verdict != "lead":
            at_hand.hold(self._clock() + self._settings.retry_seconds)
            return None
        return await self._made(plan, claim, since)

    async def read(self, plan: Plan, since: int) -> Entry | None:
        """What Redis has, fresh or stale."""
        if self._remote is None or self._doubts(plan.names):
            return None
        try:
            claim = await self._remote.claim(plan.key, (), mode="read")
        except Unavailable:
            return None
        return None if claim.stored is None or self._doubtful(claim) else self._take(plan, claim.stored, since)

    def entry(self, plan: Plan, payload: Payload, *, cost: float = 0.0, ttl: float | None = None) -> Entry:
        """A new entry of now; its time of life has the jitter."""
        spread = self._rng.uniform(1 - self._settings.jitter, 1 + self._settings.jitter)
        fresh = spread * (min(plan.negative, plan.ttl) if payload.negative else plan.ttl if ttl is None else ttl)
        now = self._clock()
        return Entry(
            plan.key, plan.name, payload,
            made_at=now, expires=now + fresh, stale_until=now + fresh + (0 if payload.negative else plan.stale),
            cost=cost, beta=self._settings.beta, tags=plan.tags,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------- claiming

    async def _claimed(self, plan: Plan, *, known: str) -> Claim | None:
        """Leave to load, after waiting for whoever has it now; None if Redis has no say."""
        if self._remote is None or self._doubts(plan.names):
            return None
        word, until, look = new_word(), self._clock() + self._patience(), _LOOK_SECONDS[0]
        try:
            while True:
                mode: Mode = "refresh" if known else "load"
                claim = await self._remote.claim(plan.key, plan.tags, mode=mode, word=word, known=known)
                left = until - self._clock()
                if claim.verdict != "wait" or known or left <= 0:
                    return None if self._doubtful(claim) else claim
                await asyncio.sleep(min(left, look * self._rng.uniform(0.5, 1.5)))
                look = min(_LOOK_SECONDS[1], look * 1.5)
        except Unavailable:
            return None

    def _doubts(self, names: Collection[str]) -> bool:
        return self._announcer.doubts(names)

    def _doubtful(self, claim: Claim) -> bool:
        """Whether this process has invalidated what Redis has just said, and Redis does not know yet."""
        return claim.stored is not None and self._doubts([TAG + tag for tag in claim.stored.tags])

    def _patience(self) -> float:
        """Half of the time that the request has is for waiting, the other half for loading in the end."""
        current, longest = context.current(), self._settings.wait_seconds
        return longest if current is None else max(0.0, min(longest, current.remaining_seconds() / 2))

    # ------------------------------------------------------------------------------------- loading

    async def _made(self, plan: Plan, claim: Claim | None, since: int) -> Entry:
        try:
            began = self._clock()
            made = await self._load(plan)
            ttl, value = (made.ttl, made.value) if isinstance(made, Keep) else (None, made)
            payload = value if isinstance(value, Payload) else codec.encode(value)
            entry = self.entry(plan, payload, cost=self._clock() - began, ttl=ttl)
        except BaseException as error:
            self._let_go(plan, claim)
            if not isinstance(error, Exception) or not is_failure(error):
                raise
            return await self._stand_in(plan, error, since)
        self._shelf.tell(plan.name, "negative_miss" if payload.negative else "miss")
        if await self._store(plan, claim, entry):
            self._shelf.keep(entry, since)
        return entry

    async def _load(self, plan: Plan) -> Any:
        try:
            return await (plan.loader() if plan.inline else self._load_in_own_time(plan))
        except NotFound as error:
            return codec.encode_missing(error)

    async def _load_in_own_time(self, plan: Plan) -> Any:
        """The load belongs to all who wait for it: the deadline of the first of them does not bind it."""
        longest = self._settings.load_seconds
        bound = deadline.of(asyncio.get_running_loop()).within(longest)
        try:
            with bound, _time_of_its_own(longest):
                return await plan.loader()
        except TimeoutError as error:
            if not bound.fired:
                raise
            raise DeadlineExceeded(f"Loading {plan.name} took longer than {longest:g} s") from error

    async def _store(self, plan: Plan, claim: Claim | None, entry: Entry) -> bool:
        """Whether `entry` may be kept here."""
        if len(entry.payload.data) > self._settings.max_value_bytes:
            _log.warning("value too large for the cache", cache=plan.name, bytes=len(entry.payload.data))
            self._shelf.tell(plan.name, "oversized")
            self._let_go(plan, claim)
            return False
        if claim is None or self._remote is None or entry.expires <= entry.made_at:
            self._let_go(plan, claim)
            return entry.expires > entry.made_at
        entry.stamp = claim.word
        fresh, usable = entry.expires - entry.made_at, entry.stale_until - entry.made_at
        try:
            stored = await self._remote.store(
                plan.key, claim, entry.payload, fresh=fresh, usable=usable, cost=entry.cost
            )  # fmt: skip
        except Unavailable:
            return True  # the fence and the watch look after what is kept here
        if not stored:
            self._shelf.tell(plan.name, "fenced")
        return stored

    def _let_go(self, plan: Plan, claim: Claim | None) -> None:
        if claim is not None and claim.verdict == "lead" and self._remote is not None:
            self._spawn(_quietly(self._remote.release(plan.key, claim.word)))

    # ------------------------------------------------------------------------------------- standing in

    async def _stand_in(self, plan: Plan, error: Exception, since: int) -> Entry:
        """The last value, if it is still of use; looked for now, since it may have been invalidated meanwhile."""
        entry = self._shelf.local.get(plan.key) or await self.read(plan, since)
        now = self._clock()
        if entry is None or now >= entry.stale_until:
            self._shelf.tell(plan.name, "error", type(error).__name__)
            raise error
        entry.hold(now + self._settings.retry_seconds)
        # Of an early refresh there is no harm yet.
        self._shelf.tell(plan.name, "stale" if now >= entry.expires else "refresh_failed", type(error).__name__)
        if now >= self._warned.get(plan.name, now):
            self._warned[plan.name] = now + _WARN_APART_SECONDS
            _log.warning("loader failed; the last value stands in", cache=plan.name, error=repr(error))
        return entry

    def _take(self, plan: Plan, stored: Stored, since: int) -> Entry:
        now = self._clock()
        entry = Entry(
            plan.key, plan.name, stored.payload,
            made_at=now - stored.age, expires=now + stored.fresh_for, stale_until=now + stored.usable_for,
            cost=stored.cost, beta=self._settings.beta, tags=stored.tags, stamp=stored.stamp,
        )  # fmt: skip
        self._shelf.keep(entry, since)
        return entry


def is_failure(error: Exception) -> bool:
    """Whether a stale value may stand in: not for an answer that is the caller's fault, nor for what says so itself."""
    if isinstance(error, PlatformError):
        return error.status >= 500
    return not isinstance(error, Uncached)


@contextmanager
def _time_of_its_own(longest_seconds: float) -> Iterator[None]:
    current = context.current()
    if current is None:
        yield
        return
    with context.activate(replace(current, deadline=time.monotonic() + longest_seconds)):
        yield


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Unavailable:
        return  # the lock lapses by itself
