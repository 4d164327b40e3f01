from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mesh.cache import Cache, cached
from app.mesh.cache.cached import part
from tests.mesh.cache.stage import cache_settings, outcomes


class Colour(Enum):
    RED = 1


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    async with Cache(cache_settings()) as alone:
        yield alone


async def test_a_call_is_made_once_however_its_arguments_are_written(cache: Cache) -> None:
    calls: list[tuple[int, int]] = []

    @cached(cache=cache, ttl=60)
    async def page(user_id: int, limit: int = 20) -> list[int]:
        calls.append((user_id, limit))
        return [user_id, limit]

    for _ in range(2):
        assert await page(7) == [7, 20]
        assert await page(user_id=7) == [7, 20]
        assert await page(limit=20, user_id=7) == [7, 20]
        assert await page(7, 20) == [7, 20]
        assert await page(8) == [8, 20]
    assert calls == [(7, 20), (8, 20)]
    assert outcomes(cache, "test_cached.test_a_call_is_made_once_however_its_arguments_are_written.<locals>.page")


async def test_two_functions_do_not_meet(cache: Cache) -> None:
    @cached(cache=cache)
    async def one(x: int) -> str:
        return "one"

    @cached(cache=cache)
    async def two(x: int) -> str:
        return "two"

    assert [await one(1), await two(1)] == ["one", "two"]


async def test_tags_and_key_are_made_from_the_arguments(cache: Cache) -> None:
    calls = 0

    @cached(cache=cache, key="profile:{user_id}", tags=("user:{user_id}", "users"))
    async def profile(session: object, user_id: int) -> int:
        nonlocal calls
        calls += 1
        return calls

    assert profile.key_of(object(), 7) == "profile:7"
    assert [await profile(object(), 7), await profile(object(), user_id=7)] == [1, 1]
    await cache.invalidate("user:7")
    assert await profile(object(), 7) == 2
    await cache.invalidate("user:8")
    assert await profile(object(), 7) == 2
    assert await profile.forget(None, 7)
    assert await profile(object(), 7) == 3


async def test_key_and_tags_may_be_functions_of_the_arguments(cache: Cache) -> None:
    @cached(cache=cache, key=lambda user: f"u:{user['id']}", tags=lambda user: [f"user:{user['id']}"])
    async def profile(user: dict[str, int]) -> int:
        return user["x"]

    assert [await profile({"id": 1, "x": 1}), await profile({"id": 1, "x": 2})] == [1, 1]
    await cache.invalidate("user:1")
    assert await profile({"id": 1, "x": 2}) == 2


async def test_an_argument_that_can_not_be_a_key_is_an_error_that_says_what_to_do(cache: Cache) -> None:
    @cached(cache=cache)
    async def read(session: object) -> int:
        return 1

    with pytest.raises(TypeError, match=r"type object can't be part of a cache key; give @cached of .*read a key="):
        await read(object())


def test_a_plain_function_is_refused_when_it_is_decorated(cache: Cache) -> None:
    with pytest.raises(TypeError, match="async function"):

        @cached(cache=cache)  # type: ignore[arg-type]  # that is the point
        def plain() -> int:
            return 1


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.floats(allow_nan=False)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)


def typed(value: Any) -> Any:
    """`value` with its types, so that 1, 1.0 and True differ."""
    if isinstance(value, list | tuple):
        return (type(value), [typed(item) for item in value])
    if isinstance(value, dict):
        return (dict, sorted(((repr(key), typed(item)) for key, item in value.items()), key=repr))
    return (type(value), repr(value))


@given(PLAIN, PLAIN)
def test_parts_are_equal_exactly_for_equal_values(one: Any, two: Any) -> None:
    assert (part(one) == part(two)) == (typed(one) == typed(two))


@pytest.mark.parametrize(
    "value",
    [
        UUID(int=7), Decimal("1.10"), date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), Colour.RED, {1, 2}, frozenset(),
    ],
)  # fmt: skip
def test_what_says_all_that_it_is_can_be_a_part(value: Any) -> None:
    assert part(value) == part(value)
    assert part(value) != part(str(value))
