"""Replies that are kept for bad times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.mesh.calling.reply import Reply
from app.mesh.calling.stale import Shelf

KIB = 1024


def test_a_kept_reply_is_found_until_it_is_too_old_and_says_that_it_is_stale() -> None:
    shelf = Shelf(100 * KIB)
    shelf.keep("k", Reply(200, {}, b"a"), 1000.0)
    found = shelf.find("k", 1009.0, no_older_than=10)
    assert found is not None
    assert (found.body, found.fallback) == (b"a", "stale")
    assert shelf.find("k", 1011.0, no_older_than=10) is None
    assert shelf.find("other", 1000.0, no_older_than=10) is None


def test_the_newest_reply_counts() -> None:
    shelf = Shelf(100 * KIB)
    shelf.keep("k", Reply(200, {}, b"old"), 1000.0)
    shelf.keep("k", Reply(200, {}, b"new"), 1001.0)
    found = shelf.find("k", 1001.0, no_older_than=10)
    assert found is not None
    assert (found.body, len(shelf)) == (b"new", 1)


def test_what_its_sender_forbids_to_store_is_not_stored_and_ends_what_was() -> None:
    shelf = Shelf(100 * KIB)
    shelf.keep("k", Reply(200, {}, b"a"), 1000.0)
    shelf.keep("k", Reply(200, {"cache-control": "private, No-Store"}, b"b"), 1001.0)
    assert shelf.find("k", 1001.0, no_older_than=10) is None


def test_who_is_used_stays_longer() -> None:
    shelf = Shelf(17 * KIB)
    for key in "abcdefgh":
        shelf.keep(key, Reply(200), 1000.0)
    assert shelf.find("a", 1000.0, no_older_than=10) is not None
    shelf.keep("i", Reply(200), 1000.0)
    kept = [key for key in "abcdefghi" if shelf.find(key, 1000.0, no_older_than=10)]
    assert kept == list("acdefghi")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30 * KIB)), max_size=80), st.integers(0, 64 * KIB))
def test_it_never_holds_more_than_it_may(kept: list[tuple[int, int]], most: int) -> None:
    shelf = Shelf(most)
    for key, size in kept:
        shelf.keep(key, Reply(200, {}, b"x" * size), 1000.0)
        held = [found for key in range(21) if (found := shelf.find(key, 1000.0, no_older_than=1))]
        assert sum(len(reply.body) for reply in held) <= most
        assert len(held) == len(shelf)
        assert all(len(reply.body) <= most / 8 for reply in held)
