"""The registry over its whole life, against a real Redis: whatever happens in whatever order, its promises hold.

Time is virtual: it passes by moving back every stamp that Redis holds (leases, last beat, last sweep), which is all that
the scripts know of it. Followers are what `directory.Directory` does, without its tasks: they read the log or a snapshot
and decide with `view`.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from typing import Any, cast

import redis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from app import settings as app_settings
from app.dev import redis as embedded_redis
from app.mesh.keys import Keys
from app.mesh.registry import operations, record, view
from app.mesh.registry.change import read_change
from app.mesh.registry.operations import Position
from app.mesh.registry.reading import Reader
from app.mesh.registry.record import Instance, Load
from app.mesh.registry.rules import Rule
from app.mesh.registry.runner import BlockingRegistry
from app.mesh.registry.view import Evidence, Key, View
from tests.mesh.actors import instance

KEYS = Keys("town")
SETTINGS = app_settings.load(env="test").registry.model_copy(update={"namespace": "town"})
BEAT, LEASE = SETTINGS.heartbeat_seconds, SETTINGS.lease_seconds
POISON = instance(id="evil", url="http://169.254.169.254:80")


@dataclass
class Member:
    """A process: it may be cut off from Redis (no beats), or be gone."""

    who: Instance
    beating: bool = True
    exists: bool = True
    beating_since: float = 0.0
    drain: Position | None = None

    @property
    def key(self) -> Key:
        return self.who.service, self.who.id


@dataclass
class Follower:
    """A process's directory, and its own entry in the registry."""

    who: Instance
    view: View = field(default_factory=View)
    reader: Reader = field(default_factory=lambda: Reader(SETTINGS.allowed_networks))
    known: set[Key] = field(default_factory=set)
    absent_since: dict[Key, float] = field(default_factory=dict)
    has_seen_leave: dict[Key, int] = field(default_factory=dict)

    @property
    def peers(self) -> dict[Key, Instance]:
        return {(peer.service, peer.id): peer for peer in self.view.everyone()}


# No shrinking: over a real Redis it takes minutes. To find the shortest story, add Phase.shrink for a while.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
SLOTS = [("users", "m0"), ("users", "m1"), ("users", "m2"), ("carts", "m3")]
slots = st.integers(0, len(SLOTS) - 1)


class History(RuleBasedStateMachine):
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.store = redis.Redis.from_url(self.url)
        self.registry = BlockingRegistry(self.url)
        self.runner = asyncio.Runner()
        self.now, self.generation = 0.0, 1
        self.processes: dict[int, Member] = {}
        self.followers: list[Follower] = []
        self.saved: list[tuple[bytes, int, bytes]] = []
        # None: lost before anybody but Redis knew of it, as far as we can tell.
        self.newest_rule: int | None = None

    def teardown(self) -> None:
        try:
            if self.followers:
                self.everything_settles()
        finally:
            self.runner.close()
            self.registry.close()
            self.store.close()

    # ------------------------------------------------------------------------------------- what happens

    @initialize()
    def found(self) -> None:
        self.store.flushall()
        self.followers = [Follower(instance("orders", f"o{n}")) for n in (1, 2)]
        for slot in range(len(SLOTS)):
            self.start(slot, old_beat=False)
        self.everybody_hears()
        self.save()

    @rule(slot=slots, old_beat=st.booleans())
    def start(self, slot: int, old_beat: bool) -> None:
        """For the first time, again, or in the place of one that still runs. Args: old_beat: one that hung comes late."""
        service, id_ = SLOTS[slot]
        before, self.generation = self.processes.get(slot), self.generation + 1
        heir = Member(instance(service, id_, generation=self.generation), beating_since=self.now)
        self.processes[slot] = heir
        self.beat(heir)
        if old_beat and before is not None:
            assert self.send(before.who).outcome == "refused"

    @rule(slot=slots, weight=st.integers(1, 3))
    def change(self, slot: int, weight: int) -> None:
        member = self.processes[slot]
        member.who = replace(member.who, weight=float(weight))
        self.beat(member)

    @rule(slot=slots)
    def drain(self, slot: int) -> None:
        member = self.processes[slot]
        member.who = replace(member.who, state="draining")
        self.may_be_dropped(member)
        self.beat(member)

    @rule(slot=slots)
    def pause(self, slot: int) -> None:
        """Its beats do not come through any more; it is there all the same, and answers whoever asks."""
        self.processes[slot].beating = False

    @rule(slot=slots)
    def stay_cut_off(self, slot: int) -> None:
        self.pause(slot)
        self.time_passes(6, watches=True, late=False)

    @rule(slot=slots)
    def resume(self, slot: int) -> None:
        member = self.processes[slot]
        if member.exists and not member.beating:
            member.beating, member.beating_since = True, self.now
            self.beat(member)

    @rule(slot=slots)
    def kill(self, slot: int) -> None:
        self.ends(self.processes[slot])

    @rule(slot=slots, late_beat=st.booleans())
    def leave(self, slot: int, late_beat: bool) -> None:
        member = self.processes[slot]
        if not member.exists:
            return
        self.ends(member)
        self.registry.run(operations.deregister(KEYS, SETTINGS, member.who))
        if late_beat:
            assert self.send(member.who).outcome == "refused"

    @rule(share=st.integers(0, 100), heard=st.booleans())
    def set_rule(self, share: int, heard: bool) -> None:
        wanted = Rule("users", self.stored_revision(), shares=(("v2", share / 100),))
        done = self.registry.run(operations.put_rule(KEYS, SETTINGS, wanted))
        assert done.outcome == "changed"
        self.newest_rule = done.revision
        if heard:
            self.everybody_hears()

    @rule()
    def flush(self) -> None:
        self.store.flushall()
        self.forget_rules_that_nobody_had_heard_of()

    @rule()
    def save(self) -> None:
        """A replica falls behind from here on."""
        self.saved = [
            (name, max(1, self.store.pttl(name)), cast("bytes", self.store.dump(name)))
            for name in cast("list[bytes]", self.store.keys())
        ]

    @rule()
    def fail_over(self) -> None:
        """That replica is promoted: an older state of the same history."""
        self.store.flushall()
        for name, ttl, content in self.saved:
            self.store.restore(name, ttl, cast("Any", content))
        self.forget_rules_that_nobody_had_heard_of()

    @rule(slot=slots, changes=st.integers(1, 3), drains=st.booleans())
    def fail_over_to_before_some_changes(self, slot: int, changes: int, drains: bool) -> None:
        self.everybody_hears()
        self.save()
        for n in range(changes):
            self.change(slot, 10 + n)
        self.set_rule(50, heard=True)
        self.fail_over()
        if drains:
            self.drain(slot)
            for follower in self.followers:
                self.send(follower.who, follower.view.position)

    @rule(slot=slots, other=slots)
    def fail_over_to_before_it_drained(self, slot: int, other: int) -> None:
        self.everybody_hears()
        self.save()
        self.drain(slot)
        self.everybody_hears()
        self.fail_over()
        if other != slot:
            self.change(other, 20)
        self.everybody_hears()

    @rule(slot=slots)
    def fail_over_to_before_it_left(self, slot: int) -> None:
        self.everybody_hears()
        self.save()
        self.leave(slot, late_beat=False)
        self.everybody_hears()
        self.fail_over()

    @rule(seconds=st.sampled_from([-86_000.0, -20.0, -8.0, -2.0, 2.0, 7.0, 8.0, 20.0, 86_000.0]))
    def clock_jump(self, seconds: float) -> None:
        """Redis's clock is set; nobody else's time has passed."""
        self.shift(seconds)
        swept = self.registry.run(operations.sweep(KEYS, SETTINGS, apart_seconds=0))
        if abs(seconds) > LEASE:
            # The last beat, whenever it was, lies further off than half a lease.
            assert swept.outcome in {"held", "empty"} or not self.store.hexists(KEYS.head, "beat_ms")

    @rule(follower=st.integers(0, 1))
    def read_the_watch(self, follower: int) -> None:
        """Unless this comes, its watch is down, and only polls bring news."""
        self.take_changes(self.followers[follower])

    @rule(follower=st.integers(0, 1))
    def poll_at_once(self, follower: int) -> None:
        self.poll(self.followers[follower])

    @rule(follower=st.integers(0, 1))
    def acknowledge(self, follower: int) -> None:
        """It says how far it has come, before it has heard the latest."""
        own = self.followers[follower]
        self.send(own.who, own.view.position)

    @rule(follower=st.integers(0, 1))
    def restart_from_disk(self, follower: int) -> None:
        own = self.followers[follower]
        kept = view.remembered(tuple(own.view.everyone()), tuple(own.view.rules.values()), self.now)
        self.followers[follower] = Follower(own.who, kept, known=own.known)

    @rule(raw=st.sampled_from([None, b"", b"{", b"1 {}", record.encode(POISON), b"1 " + b"x" * 20_000]))
    def poison(self, raw: bytes | None) -> None:
        """A record, or by a heartbeat (None) the log."""
        if raw is None:
            self.send(POISON)
            return
        self.store.hset(KEYS.records("users"), "evil", cast("Any", raw))
        self.store.sadd(KEYS.services, "users")
        for name in (KEYS.records("users"), KEYS.services):
            self.store.expire(name, 1000)

    @rule(beats=st.integers(1, 4), watches=st.booleans(), late=st.booleans())
    def time_passes(self, beats: int, watches: bool, late: bool) -> None:
        """Args: late: everybody looks around before it beats, not after."""
        for _ in range(beats):
            self.now += BEAT
            self.shift(BEAT)
            for step in (self.look_around, self.all_beat) if late else (self.all_beat, self.look_around):
                step(watches)
            self.nobody_alive_has_been_absent_for_long()

    def all_beat(self, _: bool) -> None:
        for member in self.processes.values():
            self.beat(member)
        for follower in self.followers:
            self.send(follower.who, follower.view.position)
        self.registry.run(operations.sweep(KEYS, SETTINGS))

    def look_around(self, watches: bool) -> None:
        for follower in self.followers:
            if watches:
                self.take_changes(follower)
            self.poll(follower)
            self.examine(follower)

    # ------------------------------------------------------------------------------------- how it happens

    def ends(self, member: Member) -> None:
        member.exists = member.beating = False
        self.may_be_dropped(member)

    def may_be_dropped(self, member: Member) -> None:
        for follower in self.followers:
            follower.known.discard(member.key)

    def everybody_hears(self) -> None:
        for follower in self.followers:
            self.poll(follower)
            self.send(follower.who, follower.view.position)

    def stored_revision(self) -> int:
        rules = self.followers[0].reader.rules(self.registry.run(operations.read_rules(KEYS)))
        return rules[0].revision if rules else 0

    def forget_rules_that_nobody_had_heard_of(self) -> None:
        known = [rule.revision for follower in self.followers for rule in follower.view.rules.values()]
        self.newest_rule = max([*known, self.stored_revision()], default=0) or None

    def send(self, who: Instance, seen: Position | None = None) -> operations.Beat:
        return self.registry.run(operations.heartbeat(KEYS, SETTINGS, who, Load(), seen))

    def beat(self, member: Member) -> None:
        if not (member.exists and member.beating):
            return
        beat = self.send(member.who)
        assert beat.outcome != "refused"
        if member.who.state != "draining":
            member.drain = None
        elif beat.outcome == "changed" or member.drain is None:
            member.drain = beat.position

    def shift(self, seconds: float) -> None:
        stamps = self.store.hmget(KEYS.head, ["beat_ms", "swept_ms"])
        for name, stamp in zip(("beat_ms", "swept_ms"), cast("list[bytes | None]", stamps), strict=True):
            if stamp is not None:
                self.store.hset(KEYS.head, name, int(float(stamp) - seconds * 1000))
        for service in cast("set[bytes]", self.store.smembers(KEYS.services)):
            leases = KEYS.leases(service.decode())
            for one in cast("list[bytes]", self.store.zrange(leases, 0, -1)):
                self.store.zincrby(leases, -seconds * 1000, cast("str", one))

    def poll(self, follower: Follower) -> None:
        now = self.registry.run(operations.snapshot(KEYS)).position
        known = follower.view.position
        if now == known:
            return
        if now.epoch == known.epoch and now.seq > known.seq:
            self.take_changes(follower)
            if follower.view.position.seq >= now.seq:
                return
        self.take_snapshot(follower)

    def take_changes(self, follower: Follower) -> None:
        entries = cast("Any", self.store.xrange(KEYS.log, f"({follower.view.position.seq}-0", count=1000))
        updates = [follower.reader.update(read_change(key, fields)) for key, fields in entries]
        following = view.apply(follower.view, updates, self.now) if updates else follower.view
        if following is None:
            self.take_snapshot(follower)
            return
        for update in updates:
            gone = follower.view.find(update.key)
            if update.op == "left" and gone is not None:
                follower.has_seen_leave[update.key] = gone.generation
        follower.view = following

    def take_snapshot(self, follower: Follower) -> None:
        snapshot = self.registry.run(operations.snapshot(KEYS, whole=False))
        peers = self.runner.run(follower.reader.entries(snapshot.entries))
        rules = follower.reader.rules(snapshot.rules)
        follower.view = view.merge(follower.view, snapshot.position, peers, rules, self.now)
        for lost in view.lost_rules(follower.view, rules):
            self.registry.run(operations.restore_rule(KEYS, SETTINGS, lost))

    def examine(self, follower: Follower) -> None:
        there = {member.key for member in self.processes.values() if member.exists} | {f.who.id for f in self.followers}

        def probed(peer: Instance) -> Evidence:
            answers = (peer.service, peer.id) in there or peer.service == "orders"
            return Evidence(alive_at=self.now) if answers else Evidence(gone_at=self.now)

        verdict = view.judge(
            follower.view, probed, self.now, healthy_since=0.0, grace_seconds=LEASE, ask_again_seconds=BEAT
        )
        follower.view = view.drop(follower.view, verdict.gone)

    # ------------------------------------------------------------------------------------- what is promised

    def nobody_alive_has_been_absent_for_long(self) -> None:
        for follower in self.followers:
            peers = follower.peers
            for member in self.processes.values():
                if not member.beating or member.key in peers:
                    follower.absent_since.pop(member.key, None)
                    continue
                since = follower.absent_since.setdefault(member.key, max(member.beating_since, self.now - BEAT))
                assert self.now - since <= BEAT + SETTINGS.poll_seconds, f"{member.key} is absent"

    @invariant()
    def whoever_is_there_stays_known(self) -> None:
        """Whatever becomes of Redis, and whether or not its own beats come through; unless it takes no requests anyway."""
        there = {member.key for member in self.processes.values() if member.exists and member.who.takes_requests}
        for follower in self.followers:
            peers = follower.peers
            assert follower.known & there <= peers.keys()
            follower.known |= {key for key, peer in peers.items() if peer.takes_requests} & there

    @invariant()
    def who_has_left_does_not_come_back_by_its_old_generation(self) -> None:
        for follower in self.followers:
            peers = follower.peers
            for key, generation in follower.has_seen_leave.items():
                assert key not in peers or peers[key].generation > generation

    @invariant()
    def the_log_is_one_unbroken_chain_that_ends_in_the_head(self) -> None:
        entries = cast("Any", self.store.xrange(KEYS.log))
        changes = [read_change(key, fields) for key, fields in entries]
        for before, after in itertools.pairwise(changes):
            assert (after.position.seq, after.prev) == (before.position.seq + 1, before.position.mark)
        if changes:
            head = self.registry.run(operations.snapshot(KEYS)).position
            assert changes[-1].position == head

    @invariant()
    def every_key_has_a_ttl(self) -> None:
        assert [name for name in cast("list[bytes]", self.store.keys()) if self.store.pttl(name) == -1] == []

    @invariant()
    def poison_is_believed_by_nobody(self) -> None:
        assert all(POISON.id not in {peer.id for peer in follower.view.everyone()} for follower in self.followers)

    @invariant()
    def whom_a_drain_need_not_wait_for_does_not_pick_it_any_more(self) -> None:
        for member in self.processes.values():
            if not member.beating or member.drain is None:
                continue
            at = member.drain
            asked = self.registry.run(operations.laggards(KEYS, at.epoch, at.seq, mark=at.mark))
            for follower in self.followers:
                waited_for = not asked.known or f"orders:{follower.who.id}" in asked.names
                known = follower.view.find(member.key)
                has_beaten = self.store.zscore(KEYS.seen, f"orders:{follower.who.id}") is not None
                if has_beaten and not waited_for and known is not None:
                    assert not (known.takes_requests and known.generation == member.who.generation)

    def everything_settles(self) -> None:
        """After a while without mishaps everybody knows exactly who is there, and the last rule."""
        for _ in range(40):
            self.time_passes(1, watches=True, late=False)
            if all(self.knows_what_is_so(follower) for follower in self.followers):
                return
        raise AssertionError("it does not settle")

    def knows_what_is_so(self, follower: Follower) -> bool:
        beating = {member.key for member in self.processes.values() if member.beating} | {
            ("orders", "o1"),
            ("orders", "o2"),
        }
        there = beating | {member.key for member in self.processes.values() if member.exists}
        rules = follower.view.rules
        revision = rules["users"].revision if rules else 0
        return (
            beating <= follower.peers.keys() <= there
            and revision == (self.newest_rule or 0) == self.stored_revision()
            and follower.view.suspects.keys() <= there - beating
        )


def test_whatever_happens_the_registry_keeps_its_promises(private_redis: embedded_redis.Server) -> None:
    class Here(History):
        url = private_redis.url

    run_state_machine_as_test(
        Here,
        settings=hypothesis_settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
        ),
    )
