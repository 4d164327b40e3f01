from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mesh.cache import codec
from app.mesh.cache.entry import Entry
from app.mesh.cache.fence import Fence
from app.mesh.cache.local import LocalTier

BYTES = 5000


def entry(key: str, size: int = 10, tags: frozenset[str] = frozenset()) -> Entry:
    payload = codec.encode("x" * size)
    return Entry(key, "n", payload, made_at=0.0, expires=1.0, stale_until=2.0, tags=tags)


KEYS = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 6000), st.frozensets(st.sampled_from(["t", "u"]))),
        st.tuples(st.just("get"), KEYS, st.just(0), st.just(frozenset[str]())),
        st.tuples(st.just("drop"), KEYS, st.just(0), st.just(frozenset[str]())),
        st.tuples(st.just("drop_tagged"), st.sampled_from(["t", "u"]), st.just(0), st.just(frozenset[str]())),
    )
)


@given(STEPS)
def test_it_is_never_larger_than_allowed_and_counts_what_it_holds(
    steps: list[tuple[str, str, int, frozenset[str]]],
) -> None:
    tier = LocalTier(most_entries=4, most_bytes=BYTES)
    for do, key, size, tags in steps:
        if do == "put":
            tier.put(entry(key, size, tags))
        else:
            getattr(tier, do)(key)
        assert len(tier) <= 4
        assert tier.bytes == sum(kept.size for kept in tier.entries()) <= BYTES
    for tag in "tu":
        tier.drop_tagged(tag)
    assert not any(kept.tags for kept in tier.entries())
    tier.clear()
    assert (len(tier), tier.bytes) == (0, 0)


def test_the_least_recently_used_leaves_first() -> None:
    tier = LocalTier(most_entries=2, most_bytes=BYTES)
    tier.put(entry("a"))
    tier.put(entry("b"))
    assert tier.get("a")
    tier.put(entry("c"))
    assert [kept.key for kept in tier.entries()] == ["a", "c"]


def test_one_that_is_larger_than_all_of_it_leaves_the_others_alone() -> None:
    tier = LocalTier(most_entries=9, most_bytes=BYTES)
    tier.put(entry("a"))
    tier.put(entry("b", BYTES))
    assert [kept.key for kept in tier.entries()] == ["a"]


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_refreshes_begin_early_in_proportion_to_the_cost_and_to_beta(beta: float) -> None:
    rng = random.Random(7)
    kept = Entry(
        "k", "n", codec.encode(1), made_at=0.0, expires=100.0, stale_until=100.0, cost=1.0, beta=beta
    )  # fmt: skip
    # P(due with `left` seconds left) is exp(-left / (cost * beta)).
    left = beta
    share = sum(kept.due(100.0 - left, beta, rng) for _ in range(4000)) / 4000
    assert 0.33 < share < 0.41
    assert not any(kept.due(kept.early - 0.001, beta, rng) for _ in range(1000))
    assert kept.due(100.0, beta, rng)


def test_a_fence_knows_what_was_invalidated_since() -> None:
    fence = Fence()
    fence.invalidated(["a"])
    with fence.opened() as before:
        assert not fence.broken(["a", "b"], before)
        fence.invalidated(["a"])
        with fence.opened() as after:
            assert fence.broken(["x", "a"], before)
            assert not fence.broken(["b"], before)
            assert not fence.broken(["a"], after)
            fence.everything()
            assert fence.broken(["b"], after)


def test_a_fence_forgets_what_nobody_waits_for_and_never_grows_beyond_its_bound() -> None:
    fence = Fence(most=10)
    with fence.opened() as since:
        for number in range(100):
            fence.invalidated([str(number)])
            assert fence.broken([str(number)], since)
        assert fence.broken(["0"], since)
        assert "0 names" in repr(fence) or len(repr(fence)) < 40
    assert repr(fence) == "<Fence 0 open, 0 names>"
