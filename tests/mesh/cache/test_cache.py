"""One process's cache over a real Redis, and two of them side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from app import context
from app.errors import Conflict, NotFound, Unavailable
from app.mesh.cache import Cache, Keep, Uncached
from app.mesh.keys import Keys
from tests.mesh.actors import Witness, until
from tests.mesh.cache.stage import Source, outcomes, process_cache, started

TAGS = ("user:7",)


@pytest.fixture
def source() -> Source:
    return Source({"id": 7, "tags": ["a"]})


@pytest.fixture
async def pair(redis_url: str, namespace: str, store: redis.Redis) -> AsyncIterator[tuple[Cache, Cache]]:
    """The caches of two processes."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(process_cache(redis_url, namespace)) for _ in range(2)]
        yield one, two


@pytest.fixture
def cache(pair: tuple[Cache, Cache]) -> Cache:
    return pair[0]


@pytest.fixture
def other(pair: tuple[Cache, Cache]) -> Cache:
    return pair[1]


async def test_a_value_is_made_once_for_this_process_and_for_the_others(
    cache: Cache, other: Cache, source: Source
) -> None:
    for asked in (cache, cache, other, other):
        assert await asked.get_or_load("user:7", source, tags=TAGS) == {"id": 7, "tags": ["a"]}
    assert source.loads == 1
    assert outcomes(cache, "user") == {"miss": 1, "hit_local": 1}
    assert outcomes(other, "user") == {"hit_remote": 1, "hit_local": 1}


async def test_many_who_ask_at_once_share_one_load(cache: Cache, source: Source) -> None:
    answers = await asyncio.gather(*(cache.get_or_load("user:7", source) for _ in range(1000)))
    assert source.loads == 1
    assert answers == [source.value] * 1000
    assert outcomes(cache, "user") == {"miss": 1, "shared": 999}


async def test_nobody_changes_what_another_gets(cache: Cache, source: Source) -> None:
    first = await cache.get_or_load("user:7", source)
    first["tags"].append("spoilt")
    assert await cache.get_or_load("user:7", source) == {"id": 7, "tags": ["a"]}


async def test_a_waiter_that_leaves_does_not_take_the_load_along(cache: Cache, source: Source) -> None:
    gate = source.close_gate()
    leader = await started(lambda: cache.get_or_load("user:7", source), source)
    waiter = asyncio.create_task(cache.get_or_load("user:7", source))
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait({leader})
    assert leader.cancelled()
    gate.set()
    assert await waiter == source.value
    assert source.loads == 1


async def test_a_load_that_all_have_left_is_finished_and_kept(cache: Cache, source: Source) -> None:
    gate = source.close_gate()
    leader = await started(lambda: cache.get_or_load("user:7", source), source)
    leader.cancel()
    await asyncio.wait({leader})
    gate.set()
    await until(lambda: cache.describe()["local"]["entries"] == 1)
    assert await cache.get_or_load("user:7", source) == source.value
    assert source.loads == 1


async def test_a_load_led_by_its_caller_is_taken_over_by_a_waiter(cache: Cache, source: Source) -> None:
    gate = source.close_gate()
    leader = await started(lambda: cache.fetch("user:7", source, inline=True), source)
    waiter = asyncio.create_task(cache.fetch("user:7", source, inline=True))
    await asyncio.sleep(0)
    leader.cancel()
    await until(lambda: source.loads == 2)
    gate.set()
    assert (await waiter).value == source.value


async def test_a_load_has_a_time_of_its_own_and_not_that_of_its_first_caller(cache: Cache) -> None:
    seen: list[float] = []

    async def load() -> int:
        current = context.current()
        assert current is not None
        seen.append(current.remaining_seconds())
        return 1

    with context.activate(context.Context("r1", deadline=time.monotonic() + 5)):
        await cache.get_or_load("a", load)
    assert 5 < seen[0] <= 30


async def test_invalidating_a_tag_reaches_every_process(cache: Cache, other: Cache, source: Source) -> None:
    for asked in (cache, other):
        await asked.get_or_load("user:7", source, tags=TAGS)
        await asked.get_or_load("user:8", source, tags=("user:8",))
    source.value = "new"
    assert await cache.invalidate("user:7")
    assert await cache.get_or_load("user:7", source, tags=TAGS) == "new"
    await until(lambda: other.describe()["local"]["entries"] == 1)
    assert await other.get_or_load("user:7", source, tags=TAGS) == "new"
    assert await other.get_or_load("user:8", source, tags=("user:8",)) == {"id": 7, "tags": ["a"]}
    assert source.loads == 3


async def test_a_burst_of_invalidations_is_one_message_or_two(cache: Cache, store: redis.Redis, namespace: str) -> None:
    await asyncio.gather(*(cache.invalidate(f"user:{number}") for number in range(500)))
    assert store.xlen(Keys(namespace).cache_log) <= 2


@pytest.mark.parametrize("how", ["invalidate", "delete", "clear", "set"])
@pytest.mark.parametrize("who", ["cache", "other"])
async def test_what_was_loaded_before_an_invalidation_is_not_kept_after_it(
    cache: Cache, other: Cache, source: Source, how: str, who: str
) -> None:
    gate = source.close_gate()
    loading = await started(lambda: cache.get_or_load("user:7", source, tags=TAGS), source)
    source.value = "new"
    by = cache if who == "cache" else other
    match how:
        case "invalidate":
            await by.invalidate(*TAGS)
        case "delete":
            await by.delete("user:7")
        case "clear":
            await by.clear()
        case _:
            await by.set("user:7", "new", tags=TAGS)
    gate.set()
    assert await loading == {"id": 7, "tags": ["a"]}  # it was asked for before
    for asked in (cache, other):
        assert await asked.get_or_load("user:7", source, tags=TAGS) == "new"


async def test_who_comes_after_an_invalidation_does_not_join_a_load_from_before(cache: Cache, source: Source) -> None:
    gate = source.close_gate()
    before = await started(lambda: cache.get_or_load("user:7", source, tags=TAGS), source)
    source.value = "new"
    await cache.invalidate(*TAGS)
    after = await started(lambda: cache.get_or_load("user:7", source, tags=TAGS), source)
    gate.set()
    assert await after == "new"
    assert await before == {"id": 7, "tags": ["a"]}
    assert await cache.get_or_load("user:7", source, tags=TAGS) == "new"


async def test_what_is_loaded_between_an_invalidation_here_and_in_redis_is_not_kept(
    cache: Cache, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.get_or_load("user:7", source, tags=TAGS)
    source.value = "new"
    assert cache._remote is not None
    invalidate = cache._remote.invalidate

    async def late(names: Sequence[str]) -> None:
        # Redis does not know yet, and gives what it has.
        assert await cache.get_or_load("user:7", source, tags=TAGS) == {"id": 7, "tags": ["a"]}
        await invalidate(names)

    monkeypatch.setattr(cache._remote, "invalidate", late)
    await cache.invalidate(*TAGS)
    assert await cache.get_or_load("user:7", source, tags=TAGS) == "new"


async def test_what_is_loaded_while_a_value_is_being_set_does_not_overwrite_it(
    cache: Cache, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache._remote is not None
    gate, loading = source.close_gate(), []

    async def away(*args: object, **kwargs: object) -> None:
        loading.append(await started(lambda: cache.get_or_load("user:7", source), source))
        raise Unavailable("Redis is away")

    monkeypatch.setattr(cache._remote, "put", away)
    monkeypatch.setattr(cache._remote, "claim", away_at_once)
    assert not await cache.set("user:7", "new")
    gate.set()
    await asyncio.gather(*loading)
    assert await cache.get("user:7") == "new"


async def test_redis_is_not_believed_about_what_it_has_not_been_told(
    cache: Cache, other: Cache, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked in (cache, other):
        await asked.get_or_load("user:7", source, tags=TAGS)
    source.value = "new"
    assert cache._remote is not None
    with monkeypatch.context() as patch:
        patch.setattr(cache._remote, "invalidate", away_at_once)
        assert not await cache.invalidate(*TAGS)
        assert await cache.get_or_load("user:7", source, tags=TAGS) == "new"
        assert await cache.get_or_load("user:7", source) == "new"
        cache._local.clear()
        assert await cache.get("user:7") is None  # its tags stand in the value, and were not asked for
    assert await cache.invalidate("anything else")  # what is unsent goes along
    await until(lambda: other._local.get("user:7") is None)
    assert await other.get_or_load("user:7", source, tags=TAGS) == "new"


async def away_at_once(*args: object, **kwargs: object) -> None:
    raise Unavailable("Redis is away")


async def test_a_tag_that_only_the_load_has_is_looked_after_as_well(cache: Cache, other: Cache, source: Source) -> None:
    await cache.get_or_load("a", source, tags=("first",), ttl=0.001, stale=60)
    await until_expired(cache, "a")
    gate = source.close_gate()
    loading = await started(lambda: cache.get_or_load("a", source, tags=("second",)), source)
    source.value = "new"
    await other.invalidate("second")
    gate.set()
    await loading
    for asked in (other, cache):
        assert await asked.get_or_load("a", source, tags=("second",)) == "new"


async def test_a_tag_lives_as_long_as_its_values(cache: Cache, store: redis.Redis, namespace: str) -> None:
    await cache.get_or_load("a", Source(1), tags=TAGS, ttl=3600, stale=3600)
    keys = Keys(namespace)
    for tag in (*TAGS, "*"):
        # Give or take what a script takes: before Redis 7.2 the clock goes on within.
        assert store.pttl(keys.cache_tags + tag) + 1_000 >= store.pttl(keys.cached("a")) > 7_000_000


async def test_clearing_empties_every_process(cache: Cache, other: Cache, source: Source) -> None:
    for asked in (cache, other):
        await asked.get_or_load("user:7", source)
    source.value = "new"
    assert await other.clear()
    await until(lambda: cache.describe()["local"]["entries"] == 0)
    assert await cache.get_or_load("user:7", source) == "new"


async def test_what_is_set_is_what_everybody_gets(cache: Cache, other: Cache, source: Source) -> None:
    await other.get_or_load("user:7", source)
    assert await cache.set("user:7", [1], ttl=60)
    await until(lambda: other.describe()["local"]["entries"] == 0)
    assert await other.get("user:7") == [1]
    assert await cache.get("user:7") == [1]
    assert outcomes(cache, "user") == {"hit_local": 1}
    assert await cache.delete("user:7")
    assert await cache.get("user:7", "gone") == "gone"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\x00\xff\n", id="bytes as they are"),
        pytest.param("ü", id="text"),
        pytest.param([1, 2.5, None, {"a": True}], id="plain data"),
        pytest.param(0, id="zero is something"),
        pytest.param("", id="an empty text is something"),
    ],
)
async def test_a_hit_is_what_the_miss_was(cache: Cache, other: Cache, value: Any) -> None:
    source = Source(value)
    assert [await asked.get_or_load("v", source) for asked in (cache, cache, other, other)] == [value] * 4
    assert source.loads == 1


async def test_what_would_need_pickle_is_refused(cache: Cache) -> None:
    with pytest.raises(TypeError, match="plain data or bytes"):
        await cache.get_or_load("v", Source(object()))
    with pytest.raises(TypeError, match="plain data or bytes"):
        await cache.set("v", {"when": time.localtime, "x": 1})


async def test_that_there_is_nothing_is_kept_briefly(cache: Cache, other: Cache, store: redis.Redis) -> None:
    nothing, missing = Source(None), Source()
    missing.error = NotFound("No user 9")
    for asked in (cache, cache, other):
        assert await asked.get_or_load("user:8", nothing, ttl=60, negative=2) is None
        with pytest.raises(NotFound, match="No user 9"):
            await asked.get_or_load("user:9", missing, ttl=60, negative=2)
    assert (nothing.loads, missing.loads) == (1, 1)
    assert outcomes(cache, "user") == {"negative_miss": 2, "negative": 2}
    for key in store.scan_iter("*cache:val:user*"):
        assert store.pttl(key) <= 2000


async def test_a_fault_of_the_caller_is_not_kept_and_nothing_stands_in_for_it(cache: Cache, source: Source) -> None:
    await cache.get_or_load("a", source, ttl=0.001, stale=60)
    await until_expired(cache, "a")
    source.error = Conflict("no")
    with pytest.raises(Conflict):
        await cache.get_or_load("a", source, ttl=0.001, stale=60)


async def until_expired(cache: Cache, key: str) -> None:
    end = time.monotonic() + 10
    while await cache.get(key) is not None:
        assert time.monotonic() < end


async def test_the_last_value_stands_in_while_the_loader_fails_in_this_process_and_in_others(
    cache: Cache, other: Cache, source: Source
) -> None:
    await cache.get_or_load("a", source, ttl=0.001, stale=60)
    await until_expired(cache, "a")
    source.error = ConnectionError("database away")
    for asked in (cache, other):
        assert await asked.get_or_load("a", source, ttl=0.001, stale=60) == source.value
        assert outcomes(asked, "a")["stale"] == 1
    loads = source.loads
    assert await cache.get_or_load("a", source, ttl=0.001, stale=60) == source.value
    assert source.loads == loads  # a loader that has just failed is left alone for a moment


async def test_what_was_invalidated_does_not_stand_in(cache: Cache, other: Cache, source: Source) -> None:
    await cache.get_or_load("a", source, tags=TAGS, ttl=0.001, stale=60)
    await other.invalidate(*TAGS)
    await until(lambda: cache.describe()["local"]["entries"] == 0)
    source.error = ConnectionError("database away")
    for asked in (cache, other):
        with pytest.raises(ConnectionError):
            await asked.get_or_load("a", source, tags=TAGS, ttl=0.001, stale=60)


async def test_a_loader_may_say_not_to_keep_it_or_for_how_long(cache: Cache, other: Cache) -> None:
    async def uncached() -> None:
        raise Uncached("personal")

    async def shortly() -> Keep:
        return Keep([1], 0.001)

    for _ in range(2):
        with pytest.raises(Uncached, match="personal"):
            await cache.get_or_load("a", uncached)
    found = await cache.fetch("b", shortly, ttl=60)
    assert found.value == [1]
    assert found.fresh_for <= 0.001


async def test_a_failed_load_lets_the_next_process_load_at_once(cache: Cache, other: Cache, source: Source) -> None:
    source.error = ConnectionError("away")
    with pytest.raises(ConnectionError):
        await cache.get_or_load("a", source)
    source.error = None
    assert await asyncio.wait_for(other.get_or_load("a", source), 5) == source.value


async def test_another_process_waits_for_the_load_and_loads_itself_when_its_patience_ends(
    redis_url: str, namespace: str, source: Source
) -> None:
    impatient = Source("own")
    async with (
        process_cache(redis_url, namespace) as cache,
        process_cache(redis_url, namespace, wait_seconds=0.2) as other,
    ):
        gate = source.close_gate()
        loading = await started(lambda: cache.get_or_load("a", source), source)
        assert await other.get_or_load("a", impatient) == "own"
        gate.set()
        assert await loading == source.value
        # The first to be stored stays: what was claimed before it comes too late.
        assert outcomes(cache, "a") == {"miss": 1, "fenced": 1}
        assert await cache.get_or_load("a", source) == "own"


async def test_waiting_takes_at_most_half_of_what_the_deadline_leaves(
    cache: Cache, other: Cache, source: Source
) -> None:
    own = Source("own")
    gate = source.close_gate()
    loading = await started(lambda: cache.get_or_load("a", source), source)
    with context.activate(context.Context("r1", deadline=time.monotonic() + 2)):
        assert await asyncio.wait_for(other.get_or_load("a", own), 2) == "own"
    gate.set()
    await loading


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(b"not ours", id="no head"),
        pytest.param(b"{}\nx", id="an empty head"),
        pytest.param(b'{"k":"json","s":"x","m":"1","e":"x","u":"1","d":0,"t":{}}\n1', id="a word for a number"),
        pytest.param(b'{"k":"json","s":"x","m":"1","e":"9e15","u":"9e15","d":0,"t":{}}\n{', id="broken JSON"),
        pytest.param(b'{"k":"pickle","s":"x","m":"1","e":"9e15","u":"9e15","d":0,"t":{}}\n1', id="another kind"),
        pytest.param(
            b'{"k":"json","s":"x","m":"1","e":"9e15","u":"9e15","d":0,"t":{}}\n"' + b"x" * 3_000_000 + b'"', id="huge"
        ),
        pytest.param(None, id="a list"),
    ],
)
async def test_a_poisoned_value_is_a_miss_and_heals(
    cache: Cache, other: Cache, redis_url: str, namespace: str, source: Source, poison: bytes | None
) -> None:
    with redis.Redis.from_url(redis_url) as raw:
        key = Keys(namespace).cached("user:7")
        if poison is None:
            raw.rpush(key, "x")
        else:
            raw.set(key, poison)
        raw.expire(key, 60)
        assert await cache.get_or_load("user:7", source) == source.value
    assert await other.get_or_load("user:7", source) == source.value
    assert await cache.get_or_load("user:7", source) == source.value
    assert source.loads == 1


async def test_a_value_that_is_too_large_is_used_and_not_kept(redis_url: str, namespace: str) -> None:
    async with process_cache(redis_url, namespace, max_value_bytes=100) as cache:
        large = Source("x" * 200)
        for _ in range(2):
            assert await cache.get_or_load("a", large) == large.value
        assert large.loads == 2
        assert outcomes(cache, "a") == {"miss": 2, "oversized": 2}
        with pytest.raises(ValueError, match="max_value_bytes"):
            await cache.set("a", "x" * 200)


async def test_a_refresh_comes_early_in_the_background_and_once_in_the_fleet(redis_url: str, namespace: str) -> None:
    # So eager that every hit is due.
    eager = process_cache(redis_url, namespace, beta=1e9)
    async with eager as cache, process_cache(redis_url, namespace) as other:
        source = Source("old")

        async def load() -> Any:
            value = await source()
            await asyncio.sleep(0.01)  # it must cost something to be worth a refresh
            return value

        await cache.get_or_load("a", load, ttl=60)
        assert await other.get_or_load("a", load, ttl=60) == "old"
        source.value = "new"
        gate = source.close_gate()
        assert await cache.get_or_load("a", load, ttl=60) == "old"  # at once
        await until(lambda: source.loads == 2)
        assert await asyncio.gather(*(cache.get_or_load("a", load, ttl=60) for _ in range(10))) == ["old"] * 10
        gate.set()
        await until(lambda: cache.describe()["loads_under_way"] == 0)
        assert source.loads == 2
        assert await cache.get("a") == "new"


async def test_a_process_whose_copy_was_refreshed_elsewhere_takes_that_one(redis_url: str, namespace: str) -> None:
    async with (
        process_cache(redis_url, namespace, beta=1e9) as cache,
        process_cache(redis_url, namespace, beta=1e9) as other,
    ):
        source = Source("old")

        async def load() -> Any:
            value = await source()
            await asyncio.sleep(0.01)
            return value

        await cache.get_or_load("a", load, ttl=60)
        await other.get_or_load("a", load, ttl=60)
        source.value = "new"
        await cache.get_or_load("a", load, ttl=60)
        await until(lambda: cache.describe()["loads_under_way"] == 0)
        assert await other.get_or_load("a", load, ttl=60) == "old"
        await until(lambda: other.describe()["loads_under_way"] == 0)
        assert await other.get("a") == "new"
        assert source.loads == 2


async def test_what_a_flush_takes_is_loaded_anew(cache: Cache, store: redis.Redis, namespace: str) -> None:
    source = Source(1)
    gate = source.close_gate()
    loading = await started(lambda: cache.get_or_load("a", source, tags=TAGS), source)
    for key in store.scan_iter(f"{{{namespace}}}:*"):
        store.delete(key)
    gate.set()
    assert await loading == 1
    assert not store.exists(Keys(namespace).cached("a"))  # a load that Redis has forgotten leaves nothing there


async def test_an_evicted_tag_takes_its_values_along(
    cache: Cache, other: Cache, store: redis.Redis, namespace: str, source: Source
) -> None:
    await cache.get_or_load("user:7", source, tags=TAGS)
    store.delete(Keys(namespace).cache_tags + TAGS[0])
    assert await other.get("user:7") is None


async def test_a_log_with_a_gap_empties_the_process(
    cache: Cache, store: redis.Redis, namespace: str, source: Source
) -> None:
    await cache.get_or_load("user:7", source, tags=TAGS)
    store.xadd(Keys(namespace).cache_log, {"prev": "1-1", "origin": "x", "names": "[]"})
    store.expire(Keys(namespace).cache_log, 60)
    await until(lambda: cache.describe()["local"]["entries"] == 0)
    await until(lambda: cache.watched)
    await cache.get_or_load("user:7", source, tags=TAGS)
    assert cache.describe()["local"]["entries"] == 1


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param({"key": ""}, ValueError, id="empty key"),
        pytest.param({"key": 7}, TypeError, id="key of another type"),
        pytest.param({"key": "a", "tags": "user:7"}, TypeError, id="one tag for a collection"),
        pytest.param({"key": "a", "tags": ("*",)}, ValueError, id="the tag of all"),
        pytest.param({"key": "a", "tags": ("x" * 300,)}, ValueError, id="an endless tag"),
    ],
)
async def test_what_can_not_be_a_key_or_a_tag_is_said_at_once(
    cache: Cache, source: Source, call: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await cache.get_or_load(loader=source, **call)
    assert source.loads == 0


async def test_every_decision_is_told(redis_url: str, namespace: str, source: Source) -> None:
    witness = Witness()
    async with process_cache(redis_url, namespace, observer=witness) as cache:
        for number in range(3):
            await cache.get_or_load(f"user:{number % 2}", source)
        await cache.get_or_load("any key", source, name="things")
    told = [(decision.kind, decision.service, decision.outcome) for decision in witness.decisions]
    assert ("cache", "invalidations", "heard") in told
    assert [outcome for _, name, outcome in told if name == "user"] == ["miss", "miss", "hit_local"]
    assert ("cache", "things", "miss") in told
