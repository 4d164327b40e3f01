"""Two processes' caches over a real Redis against a model: no value is older than an invalidation that was heard."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, ClassVar, TypeVar

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from app.dev.redis import Server
from app.mesh.cache import Cache
from app.mesh.keys import Keys
from tests.mesh.actors import until
from tests.mesh.cache.stage import process_cache

T = TypeVar("T")

KEYS = ("a:1", "a:2", "b:1")
TAGS = {"a:1": ("a",), "a:2": ("a", "all"), "b:1": ("all",)}
WHO = st.integers(0, 1)


class TwoProcesses(RuleBasedStateMachine):
    """Writes go to the source, then an invalidation goes out from one of the two."""

    url: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.keys = Keys(f"test-{secrets.token_hex(4)}")
        self.store = redis.Redis.from_url(self.url)
        self.caches: list[Cache] = [
            self.run(self.stack.enter_async_context(process_cache(self.url, self.keys.namespace, watch_seconds=0.05)))
            for _ in range(2)
        ]
        self.version = dict.fromkeys(KEYS, 0)
        # By process: the source's version at the last invalidation of which it knows.
        self.floors = [dict.fromkeys(KEYS, 0), dict.fromkeys(KEYS, 0)]
        self.slow: dict[tuple[int, str], tuple[asyncio.Task[Any], asyncio.Event, int]] = {}

    def teardown(self) -> None:
        for who, key in list(self.slow):
            self.finish(who, key)
        self.run(self.stack.aclose())
        self.loop.close()
        self.store.flushall()
        self.store.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def ask(self, who: int, key: str, gate: asyncio.Event | None = None) -> int:
        async def load() -> int:
            version = self.version[key]
            if gate is not None:
                await gate.wait()
            return version

        return await self.caches[who].get_or_load(key, load, ttl=60, tags=TAGS[key])

    def invalidated(self, who: int, keys: list[str]) -> None:
        for key in keys:
            self.floors[who][key] = self.version[key]

    @rule(key=st.sampled_from(KEYS))
    def the_source_changes(self, key: str) -> None:
        self.version[key] += 1

    @rule(who=WHO, tag=st.sampled_from(["a", "all"]))
    def invalidate(self, who: int, tag: str) -> None:
        assert self.run(self.caches[who].invalidate(tag))
        self.invalidated(who, [key for key in KEYS if tag in TAGS[key]])

    @rule(who=WHO, key=st.sampled_from(KEYS))
    def delete(self, who: int, key: str) -> None:
        assert self.run(self.caches[who].delete(key))
        self.invalidated(who, [key])

    @rule(who=WHO, key=st.sampled_from(KEYS))
    def set(self, who: int, key: str) -> None:
        self.version[key] += 1
        assert self.run(self.caches[who].set(key, self.version[key], ttl=60, tags=TAGS[key]))
        self.invalidated(who, [key])

    @rule(who=WHO)
    def clear(self, who: int) -> None:
        assert self.run(self.caches[who].clear())
        self.invalidated(who, list(KEYS))

    @rule()
    def both_hear_of_everything(self) -> None:
        for cache in self.caches:
            assert cache._watch is not None
            watch = cache._watch
            self.run(until(lambda watch=watch: watch._on and watch._position == self.last()))  # type: ignore[misc]
        for key in KEYS:
            known = max(floors[key] for floors in self.floors)
            for floors in self.floors:
                floors[key] = known

    def last(self) -> bytes:
        entries: Any = self.store.xrevrange(self.keys.cache_log, count=1)
        return bytes(entries[0][0]) if entries else b"0-0"

    @rule()
    def redis_is_flushed(self) -> None:
        self.store.flushall()

    @rule(who=WHO)
    def the_connections_are_cut(self, who: int) -> None:
        for client in self.store.client_list():
            if client["cmd"].startswith("xread"):
                self.store.client_kill_filter(_id=client["id"])
        self.run(asyncio.sleep(0))

    @rule(who=WHO, key=st.sampled_from(KEYS))
    def read(self, who: int, key: str) -> None:
        if any(slow_key == key for _, slow_key in self.slow):
            return  # it would wait for that one
        value = self.run(self.ask(who, key))
        assert self.floors[who][key] <= value <= self.version[key]

    @rule(who=WHO, key=st.sampled_from(KEYS))
    def a_slow_load_begins(self, who: int, key: str) -> None:
        if self.slow:
            return
        gate, floor = asyncio.Event(), self.floors[who][key]
        task = self.loop.create_task(self.ask(who, key, gate))
        loads = self.caches[who].describe
        self.run(until(lambda: loads()["loads_under_way"] or task.done()))
        self.run(asyncio.sleep(0.002))
        self.slow[who, key] = (task, gate, floor)

    @precondition(lambda self: self.slow)
    @rule(who=WHO, how=st.sampled_from(["invalidate", "delete", "set", "clear"]))
    def what_is_being_loaded_changes_and_then_the_load_ends(self, who: int, how: str) -> None:
        [(loader, key)] = self.slow
        self.version[key] += 1
        if how == "invalidate":
            self.invalidate(who, TAGS[key][-1])
        elif how == "clear":
            self.clear(who)
        else:
            getattr(self, how)(who, key)
        self.finish(loader, key)
        self.both_hear_of_everything()
        for reader in (0, 1):
            self.read(reader, key)

    @rule()
    def slow_loads_end(self) -> None:
        for who, key in list(self.slow):
            self.finish(who, key)

    def finish(self, who: int, key: str) -> None:
        task, gate, floor = self.slow.pop((who, key))
        gate.set()
        assert self.run(_value(task)) >= floor

    @invariant()
    def every_key_ends_by_itself(self) -> None:
        assert all(self.store.ttl(key) != -1 for key in self.store.scan_iter("*cache:*"))


async def _value(task: asyncio.Task[int]) -> int:
    return await task


def test_two_processes_keep_to_what_they_have_heard(private_redis: Server) -> None:
    TwoProcesses.url = private_redis.url
    run_state_machine_as_test(TwoProcesses, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))
