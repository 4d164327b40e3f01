"""The cache against a model: what it may serve, at any moment, whatever happens in whatever order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.mesh.cache import Cache
from tests.mesh.cache.stage import cache_settings

T = TypeVar("T")

KEYS = ("a:1", "a:2", "b:1", "b:2", "c:1")
TAGS = {"a:1": ("a",), "a:2": ("a", "all"), "b:1": ("all",), "b:2": (), "c:1": ("c",)}
TTL, STALE, NEGATIVE, JITTER, RETRY = 10.0, 30.0, 2.0, 0.1, 1.0
MOST_ENTRIES = 3

Version = tuple[int, float]  # of the source, and when it was loaded


class AwayError(Exception):
    """The source does not answer."""


class LocalCache(RuleBasedStateMachine):
    """One process without Redis; the clock is the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        self.cache = Cache(
            cache_settings(max_entries=MOST_ENTRIES, jitter=JITTER, beta=1.0, retry_seconds=RETRY, stale_seconds=STALE),
            clock=lambda: self.now,
            rng=random.Random(7),
        )
        self.version = dict.fromkeys(KEYS, 0)
        self.present = dict.fromkeys(KEYS, True)
        # What was the source's version at the last invalidation that has returned.
        self.floor = dict.fromkeys(KEYS, 0)
        self.came_back = dict.fromkeys(KEYS, 0.0)
        self.failing, self.failed_at = False, float("-inf")
        self.slow: dict[str, tuple[asyncio.Task[Any], asyncio.Event, int]] = {}

    def teardown(self) -> None:
        for key in list(self.slow):
            self.finish(key)
        self.run(self.cache.__aexit__(None, None, None))
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def and_what_follows() -> T:
            result = await work
            for _ in range(10):  # refreshes in the background
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(and_what_follows())

    async def load(self, key: str, gate: asyncio.Event | None = None) -> list[float] | None:
        version, present, failing = self.version[key], self.present[key], self.failing
        if gate is not None:
            await gate.wait()
        if failing:
            self.failed_at = self.now
            raise AwayError
        return [version, self.now] if present else None

    async def ask(self, key: str, gate: asyncio.Event | None = None) -> Any:
        return await self.cache.get_or_load(
            key, lambda: self.load(key, gate), ttl=TTL, tags=TAGS[key], negative=NEGATIVE
        )

    def check(self, key: str, value: Any, floor: int) -> None:
        if value is None:
            return
        version, loaded_at = value
        assert version >= floor, "older than an invalidation that had returned"
        # A loader that has failed is left alone for a moment.
        excused = self.now - self.failed_at <= RETRY
        longest = TTL * (1 + JITTER) + (STALE if excused else 0)
        assert self.now - loaded_at <= longest + 1e-6, "stale without an error"

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.3, 9.5, 12.0, 50.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from(KEYS))
    def the_source_changes(self, key: str) -> None:
        self.version[key] += 1

    @rule(key=st.sampled_from(KEYS))
    def the_source_vanishes_or_comes_back(self, key: str) -> None:
        self.present[key] = not self.present[key]
        self.came_back[key] = self.now
        self.version[key] += 1

    @rule()
    def the_source_fails_or_recovers(self) -> None:
        self.failing = not self.failing

    @rule(tag=st.sampled_from(["a", "all", "c"]))
    def invalidate(self, tag: str) -> None:
        assert self.run(self.cache.invalidate(tag))
        for key in KEYS:
            if tag in TAGS[key]:
                self.floor[key] = self.version[key]

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        assert self.run(self.cache.delete(key))
        self.floor[key] = self.version[key]

    @rule(key=st.sampled_from(KEYS))
    def set(self, key: str) -> None:
        self.version[key] += 1
        self.present[key] = True
        self.came_back[key] = self.now
        assert self.run(self.cache.set(key, [self.version[key], self.now], ttl=TTL, tags=TAGS[key]))
        self.floor[key] = self.version[key]

    @rule(key=st.sampled_from(KEYS))
    def read(self, key: str) -> None:
        if key in self.slow:  # it might wait for that load
            return
        try:
            value = self.run(self.ask(key))
        except AwayError:
            assert self.failing
            return
        self.check(key, value, self.floor[key])
        if value is None:
            assert not self.present[key] or self.now - self.came_back[key] <= NEGATIVE * (1 + JITTER)

    @precondition(lambda self: len(self.slow) < 2)
    @rule(key=st.sampled_from(KEYS))
    def a_slow_load_begins(self, key: str) -> None:
        if key in self.slow:
            return
        gate = asyncio.Event()
        task = self.loop.create_task(self.ask(key, gate))
        floor = self.floor[key]
        self.run(asyncio.sleep(0))
        self.slow[key] = (task, gate, floor)

    @precondition(lambda self: self.slow)
    @rule(how=st.sampled_from(["invalidate", "delete", "set", "only the source"]), data=st.data())
    def what_is_being_loaded_changes_and_then_the_load_ends(self, how: str, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.slow)))
        self.version[key] += 1
        if how == "invalidate" and TAGS[key]:
            self.invalidate(TAGS[key][-1])
        elif how == "delete":
            self.delete(key)
        elif how == "set":
            self.set(key)
        self.finish(key)
        self.read(key)

    @rule(key=st.sampled_from(KEYS))
    def a_slow_load_ends(self, key: str) -> None:
        if key in self.slow:
            self.finish(key)

    @rule(key=st.sampled_from(KEYS))
    def a_second_reader_comes_and_the_slow_load_ends(self, key: str) -> None:
        if key not in self.slow:
            return
        floor = self.floor[key]
        reader = self.loop.create_task(self.ask(key))
        self.run(asyncio.sleep(0))
        self.finish(key)
        outcome = self.run(_settled(reader))
        if not isinstance(outcome, AwayError):
            self.check_version(outcome, floor)

    def finish(self, key: str) -> None:
        task, gate, floor = self.slow.pop(key)
        gate.set()
        outcome = self.run(_settled(task))
        if not isinstance(outcome, AwayError):
            self.check_version(outcome, floor)

    def check_version(self, value: Any, floor: int) -> None:
        assert value is None or value[0] >= floor, "older than an invalidation that had returned when it was asked for"

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.cache._local) <= MOST_ENTRIES
        assert self.cache.describe()["loads_under_way"] <= len(self.slow)


async def _settled(task: asyncio.Task[Any]) -> Any:
    try:
        return await task
    except AwayError as error:
        return error


TestLocalCache = LocalCache.TestCase
TestLocalCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
