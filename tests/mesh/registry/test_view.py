"""Pure decisions: no clock, no Redis."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mesh.registry import view
from app.mesh.registry.operations import Position
from app.mesh.registry.record import Instance
from app.mesh.registry.view import Table, Update, View
from tests.mesh.actors import instance

NOW = 1000.0
GRACE = 15.0


def position(seq: int, epoch: str = "e", mark: str | None = None) -> Position:
    return Position(epoch, seq, mark or f"m{seq}")


def up(seq: int, who: Instance | None, key: tuple[str, str] = ("users", "users-1"), **odd: str) -> Update:
    key = (who.service, who.id) if who is not None else key
    return Update(position(seq, odd.get("epoch", "e")), odd.get("prev", f"m{seq - 1}"), key, gone=False, instance=who)


def down(seq: int, service: str = "users", id_: str = "users-1") -> Update:
    return Update(position(seq), f"m{seq - 1}", (service, id_), gone=True, instance=None)


def known(*peers: Instance, seq: int = 5) -> View:
    return view.merge(View(), position(seq), peers, NOW)


def table(*peers: Instance, before: Table = Table(), now: float = NOW) -> Table:  # noqa: B008  # frozen
    return view.tabulate(known(*peers), before, now)


A, B = instance(id="a"), instance(id="b")


# ------------------------------------------------------------------------------------------ the log


def test_the_log_adds_changes_and_removes() -> None:
    draining = instance(id="a", state="draining")
    following = view.apply(known(A), [up(6, B), up(7, draining), down(8, id_="b")])
    assert following is not None
    assert dict(following.peers) == {("users", "a"): draining}
    assert following.position == position(8)


def test_changes_that_the_snapshot_held_already_are_skipped() -> None:
    following = view.apply(known(A), [up(4, B), down(5, id_="a"), up(6, B)])
    assert following is not None
    assert {id_ for _, id_ in following.peers} == {"a", "b"}


@pytest.mark.parametrize(
    "updates",
    [
        [up(7, B)],
        [up(6, B), up(8, A)],
        [up(6, B, epoch="other")],
        [up(6, B, prev="another past")],
        [up(7, B, prev="m5")],
    ],
    ids=["gap", "gap within", "new epoch", "another past with the same seq", "gap in seq alone"],
)
def test_a_log_that_does_not_continue_the_view_asks_for_a_snapshot(updates: Sequence[Update]) -> None:
    assert view.apply(known(A), updates) is None


def test_a_poisoned_change_keeps_what_was_known_and_moves_on() -> None:
    following = view.apply(known(A), [up(6, None, ("users", "a"))])
    assert following is not None
    assert dict(following.peers) == {("users", "a"): A}
    assert following.position.seq == 6


# ------------------------------------------------------------------------------------------ snapshots


def test_a_snapshot_never_removes_at_once() -> None:
    emptied = view.merge(known(A, B), Position(), [], NOW)
    assert set(emptied.peers) == {("users", "a"), ("users", "b")}
    assert set(emptied.missing) == set(emptied.peers)


def test_who_comes_back_is_no_longer_missing() -> None:
    emptied = view.merge(known(A, B), position(1, "new"), [], NOW)
    healed = view.merge(emptied, position(2, "new"), [A], NOW + 1)
    assert set(healed.missing) == {("users", "b")}
    confirmed = view.apply(healed, [Update(position(3, "new"), "m2", ("users", "b"), gone=False, instance=B)])
    assert confirmed is not None
    assert not confirmed.missing


def test_who_stays_missing_is_dropped_after_a_grace_of_healthy_contact() -> None:
    emptied = view.merge(known(A, B), position(1, "new"), [B], NOW)
    soon = view.expire(emptied, NOW + GRACE - 0.1, healthy_since=0, grace_seconds=GRACE)
    late = view.expire(emptied, NOW + GRACE, healthy_since=0, grace_seconds=GRACE)
    assert len(soon.peers) == 2
    assert dict(late.peers) == {("users", "b"): B}
    assert not late.missing


def test_time_without_the_registry_does_not_count_towards_the_grace() -> None:
    emptied = view.merge(known(A), position(1, "new"), [], NOW)
    assert view.expire(emptied, NOW + 9999, healthy_since=None, grace_seconds=GRACE) is emptied
    assert view.expire(emptied, NOW + 9999, healthy_since=NOW + 9990, grace_seconds=GRACE) is emptied
    assert not view.expire(emptied, NOW + 9999, healthy_since=NOW + 9980, grace_seconds=GRACE).peers


def test_what_is_read_from_disk_is_missing_until_it_is_confirmed() -> None:
    recalled = view.remembered([A, B], NOW)
    assert set(recalled.missing) == set(recalled.peers) == {("users", "a"), ("users", "b")}
    assert set(view.merge(recalled, position(1), [A], NOW + 1).missing) == {("users", "b")}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=12), st.integers(0, 2**32))
def test_reading_the_log_in_any_portions_gives_what_reading_it_at_once_gives(
    history: list[tuple[str, bool]], seed: int
) -> None:
    updates = [
        up(n, instance(id=id_, weight=n)) if alive else down(n, id_=id_) for n, (id_, alive) in enumerate(history, 6)
    ]
    rng, portioned, at = random.Random(seed), known(A), 0
    while at < len(updates):
        size = rng.randint(1, 4)
        following = view.apply(portioned, updates[max(0, at - 2) : at + size])
        assert following is not None
        portioned, at = following, at + size
    whole = view.apply(known(A), updates)
    assert whole == portioned


# ------------------------------------------------------------------------------------------ tables and routes


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/users", "users"), ("/users/", "users"), ("/users/7", "users"), ("/users/7/orders", "users"),
        ("/usersx", None), ("/user", None), ("/", None), ("", None), ("users", None), ("//users", None), ("/Users", None),
        ("/users/admin", "admin"), ("/users/admin/x", "admin"), ("/users/administrator", "users"), ("/users//admin", "users"),
        ("/orders/v2", "orders"), ("/orders", None), ("/orders/v2x", None), ("/users?x=1", None), ("/users%2F7", None),
    ],
)  # fmt: skip
def test_a_path_goes_to_the_longest_prefix_on_borders_of_segments(path: str, service: str | None) -> None:
    admin = instance("admin", "admin-1", prefixes=("/users/admin",))
    orders = instance("orders", "orders-1", prefixes=("/orders/v2",))
    assert table(A, admin, orders).route(path) == service


def test_a_path_of_a_million_slashes_is_looked_at_no_deeper_than_the_deepest_prefix() -> None:
    class Counting(str):
        __slots__ = ()
        searches = 0

        def find(self, *args: Any) -> int:
            Counting.searches += 1
            return super().find(*args)

    assert table(A).route(Counting("/" * 1_000_000)) is None
    assert Counting.searches <= 3


def test_of_two_services_with_the_same_prefix_everyone_picks_the_same() -> None:
    rival = instance("aliens", "aliens-1", prefixes=("/users",))
    assert table(A, rival).route("/users") == table(rival, A).route("/users") == "aliens"


def test_a_route_is_remembered_for_a_while_after_the_last_instance_has_gone() -> None:
    before = table(A)
    gone = table(before=before, now=NOW)
    assert gone.route("/users/7") == "users"
    assert gone.ready.get("users", ()) == ()
    assert table(before=gone, now=NOW + view.ROUTE_MEMORY_SECONDS - 1).route("/users/7") == "users"
    assert table(before=gone, now=NOW + view.ROUTE_MEMORY_SECONDS).route("/users/7") is None


def test_a_prefix_that_living_instances_no_longer_announce_is_forgotten_at_once() -> None:
    moved = instance(id="a", prefixes=("/people",))
    assert table(moved, before=table(A)).route("/users") is None


def test_a_remembered_route_gives_way_to_a_service_that_announces_it() -> None:
    heir = instance("people", "people-1", prefixes=("/users",))
    assert table(heir, before=table(A)).route("/users") == "people"


def test_all_instances_are_listed_and_only_ready_ones_picked() -> None:
    made = table(A, instance(id="c", state="draining"))
    assert [peer.id for peer in made.instances["users"]] == ["a", "c"]
    assert [peer.id for peer in made.ready["users"]] == ["a"]
