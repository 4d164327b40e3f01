"""Pure decisions: no clock, no Redis."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mesh.registry import view
from app.mesh.registry.group import Group
from app.mesh.registry.operations import Position
from app.mesh.registry.record import Instance
from app.mesh.registry.rules import Rule
from app.mesh.registry.view import Evidence, Suspect, Table, Update, Verdict, View
from tests.mesh.actors import instance

NOW = 1000.0
GRACE = 15.0
PROBES_APART = 5.0


def position(seq: int, epoch: str = "e", mark: str | None = None) -> Position:
    return Position(epoch, seq, mark or f"m{seq}")


def up(seq: int, who: Instance | None, key: tuple[str, str] = ("users", "users-1"), **odd: str) -> Update:
    key = (who.service, who.id) if who is not None else key
    return Update(position(seq, odd.get("epoch", "e")), odd.get("prev", f"m{seq - 1}"), "up", key, instance=who)


def left(seq: int, service: str = "users", id_: str = "users-1") -> Update:
    return Update(position(seq), f"m{seq - 1}", "left", (service, id_))


def expired(seq: int, service: str = "users", id_: str = "users-1") -> Update:
    return Update(position(seq), f"m{seq - 1}", "expired", (service, id_))


def ruled(seq: int, rule: Rule | None) -> Update:
    return Update(position(seq), f"m{seq - 1}", "rule", ("users", ""), rule=rule)


def known(*peers: Instance, seq: int = 5) -> View:
    return view.merge(View(), position(seq), peers, (), NOW)


def apply(to: View, *updates: Update, now: float = NOW) -> View:
    following = view.apply(to, updates, now)
    assert following is not None
    return following


def merge(to: View, at: Position, *peers: Instance, rules: Sequence[Rule] = (), now: float = NOW) -> View:
    return view.merge(to, at, peers, rules, now)


def peers(of: View) -> dict[tuple[str, str], Instance]:
    return {(peer.service, peer.id): peer for peer in of.everyone()}


def ids(of: View) -> list[str]:
    return [peer.id for peer in of.everyone()]


def table(*members: Instance, before: Table = Table(), now: float = NOW) -> Table:  # noqa: B008  # frozen
    return view.tabulate(known(*members), before, now)


A, B = instance(id="a"), instance(id="b")


# ------------------------------------------------------------------------------------------ the log


def test_the_log_adds_changes_and_removes() -> None:
    draining = instance(id="a", state="draining")
    following = apply(known(A), up(6, B), up(7, draining), left(8, id_="b"))
    assert peers(following) == {("users", "a"): draining}
    assert following.position == position(8)


def test_changes_that_the_snapshot_held_already_are_skipped() -> None:
    assert ids(apply(known(A), up(4, B), left(5, id_="a"), up(6, B))) == ["a", "b"]


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
    assert view.apply(known(A), updates, NOW) is None


def test_a_poisoned_change_keeps_what_was_known_and_moves_on() -> None:
    following = apply(known(A), up(6, None, ("users", "a")))
    assert peers(following) == {("users", "a"): A}
    assert following.position.seq == 6


def test_what_a_later_version_writes_into_the_log_is_passed_over() -> None:
    following = apply(known(A), Update(position(6), "m5", "other", ("users", "a")))
    assert (ids(following), following.position.seq) == (["a"], 6)


def test_a_change_of_one_service_leaves_the_others_untouched_and_the_tuples_themselves_the_same() -> None:
    before = known(A, instance("orders", "o"))
    after = apply(before, up(6, B))
    assert after.groups["orders"] is before.groups["orders"]
    tables = view.tabulate(before, Table(), NOW), view.tabulate(after, Table(), NOW)
    assert tables[0].instances["orders"] is tables[1].instances["orders"]
    assert tables[0].instances["users"] != tables[1].instances["users"]


_members = st.builds(
    instance,
    id=st.sampled_from("abcdef"),
    state=st.sampled_from(["ready", "draining"]),
    weight=st.sampled_from([0.0, 1.0]),
    prefixes=st.lists(st.sampled_from(["/u", "/v", "/w"]), max_size=3, unique=True).map(tuple),
)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | _members), max_size=4), max_size=6))
def test_a_group_that_was_changed_is_as_one_made_anew(history: list[list[tuple[str, Instance | None]]]) -> None:
    group, expected = Group(), dict[str, Instance]()
    for step in history:
        changes = {(who.id if who is not None else id_): who for id_, who in step}
        group = group.changed(changes)
        expected = {id_: who for id_, who in (expected | changes).items() if who is not None}
        assert group == Group.of(expected.values())
        assert [group.find(id_) for id_ in "abcdef"] == [expected.get(id_) for id_ in "abcdef"]


# ------------------------------------------------------------------------------------------ snapshots


def test_a_snapshot_never_removes_at_once() -> None:
    emptied = merge(known(A, B), Position())
    assert ids(emptied) == ["a", "b"]
    assert set(emptied.suspects) == set(peers(emptied))


def test_who_comes_back_is_no_longer_missing() -> None:
    emptied = merge(known(A, B), position(1, "new"))
    healed = merge(emptied, position(2, "new"), A, now=NOW + 1)
    assert dict(healed.suspects) == {("users", "b"): Suspect(NOW, "missing")}
    confirmed = apply(healed, Update(position(3, "new"), "m2", "up", ("users", "b"), instance=B))
    assert not confirmed.suspects


def test_a_snapshot_that_says_the_same_changes_nothing() -> None:
    before = known(A, B)
    assert merge(before, position(9), A, B).groups["users"] is before.groups["users"]


def test_what_is_read_from_disk_is_missing_until_it_is_confirmed() -> None:
    recalled = view.remembered([A, B], [Rule("users", 3)], NOW)
    assert set(recalled.suspects) == set(peers(recalled)) == {("users", "a"), ("users", "b")}
    assert set(merge(recalled, position(1), A).suspects) == {("users", "b")}
    assert recalled.rules == {"users": Rule("users", 3)}


def test_who_has_left_does_not_come_back_from_an_older_state_of_the_registry_but_its_next_generation_does() -> None:
    gone = apply(known(A, B), left(6, id_="a"))
    restored = merge(gone, position(3), A, B)
    assert ids(restored) == ["b"]
    again = instance(id="a", generation=2)
    assert ids(merge(restored, position(4), again, B)) == ["a", "b"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["up", "left", "expired"])), max_size=12),
    st.integers(0, 2**32),
)
def test_reading_the_log_in_any_portions_gives_what_reading_it_at_once_gives(
    history: list[tuple[str, str]], seed: int
) -> None:
    verbs = {"left": left, "expired": expired}
    updates = [
        up(n, instance(id=id_, weight=n)) if op == "up" else verbs[op](n, id_=id_)
        for n, (id_, op) in enumerate(history, 6)
    ]
    rng, portioned, at = random.Random(seed), known(A), 0
    while at < len(updates):
        size = rng.randint(1, 4)
        portioned, at = apply(portioned, *updates[max(0, at - 2) : at + size]), at + size
    assert apply(known(A), *updates) == portioned


# ------------------------------------------------------------------------------------------ suspects


def judged(
    of: View,
    found: Evidence = Evidence(),  # noqa: B008  # frozen
    *,
    now: float = NOW,
    healthy_since: float | None = 0.0,
) -> Verdict:
    return view.judge(
        of, lambda _: found, now, healthy_since=healthy_since, grace_seconds=GRACE, ask_again_seconds=PROBES_APART
    )


GONE_A = Verdict(gone=(("users", "a"),))
ASK_A = Verdict(ask=(A,))


def test_whose_lease_has_ended_stays_and_is_asked_at_once() -> None:
    suspected = apply(known(A), expired(6, id_="a"))
    assert ids(suspected) == ["a"]
    assert suspected.suspects == {("users", "a"): Suspect(NOW, "expired")}
    assert judged(suspected) == ASK_A


def test_nobody_unknown_becomes_a_suspect() -> None:
    assert not apply(known(A), left(6, id_="a"), expired(7, id_="a")).suspects


def test_a_heartbeat_or_a_leave_ends_the_suspicion() -> None:
    suspected = apply(known(A), expired(6, id_="a"))
    assert not apply(suspected, up(7, A)).suspects
    assert not apply(suspected, left(7, id_="a")).suspects


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Evidence(alive_at=NOW - 1), Verdict()),
        (Evidence(alive_at=NOW - 5), ASK_A),
        (Evidence(asked_at=NOW - 1), Verdict()),
        (Evidence(gone_at=NOW, asked_at=NOW), GONE_A),
        (Evidence(alive_at=NOW + 1, gone_at=NOW), Verdict()),
        (Evidence(alive_at=NOW - 1, gone_at=NOW), GONE_A),
        (Evidence(gone_at=NOW - 1, asked_at=NOW - 9), ASK_A),
    ],
    ids=[
        "it answered just now", "it answered a while ago", "asked, no answer yet", "a probe found nobody",
        "it answered after that", "a probe found nobody after that", "found to be gone before it was a suspect",
    ],
)  # fmt: skip
def test_the_latest_evidence_decides(found: Evidence, verdict: Verdict) -> None:
    suspected = apply(known(A), expired(6, id_="a"))
    assert judged(suspected, found, now=NOW + 0.0) == verdict


def test_a_suspect_that_takes_no_requests_goes_without_further_ado() -> None:
    suspected = apply(known(instance(id="a", state="draining")), expired(6, id_="a"))
    assert judged(suspected) == GONE_A


def test_who_is_missing_is_asked_only_after_a_grace_of_healthy_contact() -> None:
    emptied = merge(known(A), position(1, "new"))
    assert judged(emptied, now=NOW + GRACE - 0.1) == Verdict()
    assert judged(emptied, now=NOW + GRACE) == ASK_A


def test_while_the_registry_is_away_nobody_is_asked_or_dropped_and_the_time_does_not_count() -> None:
    emptied = merge(known(A), position(1, "new"))
    dead = Evidence(gone_at=NOW + 9998)
    assert judged(emptied, dead, now=NOW + 9999, healthy_since=None) == Verdict()
    assert judged(emptied, dead, now=NOW + 9999, healthy_since=NOW + 9990) == Verdict()
    assert judged(emptied, dead, now=NOW + 9999, healthy_since=NOW + 9980) == GONE_A


def test_who_has_been_silent_longest_is_asked_first() -> None:
    suspected = apply(known(A, B), expired(6, id_="a"), expired(7, id_="b"))
    found = {"a": Evidence(alive_at=NOW - 6), "b": Evidence(alive_at=NOW - 60)}
    verdict = view.judge(
        suspected,
        lambda peer: found[peer.id],
        NOW,
        healthy_since=0,
        grace_seconds=GRACE,
        ask_again_seconds=PROBES_APART,
    )
    assert verdict.ask == (B, A)


def test_who_is_dropped_is_dropped_with_the_suspicion() -> None:
    dropped = view.drop(apply(known(A, B), expired(6, id_="a")), [("users", "a")])
    assert (ids(dropped), dropped.suspects) == (["b"], {})


# ------------------------------------------------------------------------------------------ rules


def test_the_rule_with_the_highest_revision_holds_wherever_it_comes_from() -> None:
    old, new = Rule("users", 1, shares=(("v1", 0.5),)), Rule("users", 2, shares=(("v2", 0.05),))
    assert apply(known(A), ruled(6, new), ruled(7, old)).rules == {"users": new}
    assert merge(apply(known(A), ruled(6, new)), position(3), A, rules=[old]).rules == {"users": new}
    assert merge(apply(known(A), ruled(6, old)), position(9), A, rules=[new]).rules == {"users": new}
    assert apply(apply(known(A), ruled(6, new)), ruled(7, None)).rules == {"users": new}


def test_a_rule_that_the_registry_has_lost_is_known_to_be_lost() -> None:
    ruling = apply(known(A), ruled(6, Rule("users", 2)))
    assert view.lost_rules(ruling, []) == (Rule("users", 2),)
    assert view.lost_rules(ruling, [Rule("users", 1)]) == (Rule("users", 2),)
    assert view.lost_rules(ruling, [Rule("users", 2)]) == ()


def test_a_cleared_rule_is_in_no_table() -> None:
    ruling = apply(known(A), ruled(6, Rule("users", 2, weights=(("a", 0.5),))))
    cleared = apply(ruling, ruled(7, Rule("users", 3)))
    assert list(view.tabulate(ruling, Table(), NOW).rules) == ["users"]
    assert dict(view.tabulate(cleared, Table(), NOW).rules) == {}


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
