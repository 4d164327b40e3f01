"""What an operator says about a service: as words, in Redis, and in every directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import redis
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.mesh import Mesh
from app.mesh.keys import Keys
from app.mesh.registry import operations, rules
from app.mesh.registry.operations import RuleSet
from app.mesh.registry.record import Load, PoisonedRecord
from app.mesh.registry.rules import Rule, describe, parse
from app.mesh.registry.runner import BlockingRegistry
from app.settings import RegistrySettings, Settings
from tests.mesh.actors import fast_settings, instance, mesh_of, until

NONE = Rule("orders", 0)


# ------------------------------------------------------------------------------------------ words


def test_a_percentage_is_a_version_s_share_and_a_number_an_instance_s_weight() -> None:
    said = parse(["v2=5%", "v1=94.5%", "orders-ab12cd=0.5"], Rule("orders", 7))
    assert said == Rule("orders", 7, shares=(("v1", 0.945), ("v2", 0.05)), weights=(("orders-ab12cd", 0.5),))


def test_what_is_not_named_stays_and_what_is_empty_goes() -> None:
    before = parse(["v1=50%", "v2=5%", "a=2", "b=3"], NONE)
    assert describe(parse(["v2=10%", "a=", "v1="], before)) == "v2=10% b=3"
    assert parse(["v1=", "v2=", "a=", "b="], before).is_empty
    assert parse(["unknown="], NONE).is_empty


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Say what to change"), (["v2"], "'v2'"), (["=5%"], "neither"), (["v2=5 %"], "neither"), (["v2=%"], "neither"), (["v2=-1%"], "neither"),
        (["v2=101%"], "between 0% and 100%"), (["v2=x"], "neither"), (["a=1001"], "between 0 and 1000"), (["a=nan"], "neither"),
        (["a=1e3"], "neither"), (["v 2=5%"], "neither"), (["v1=60%", "v2=50%"], "110%: more than 100%"), (["x" * 129 + "=1"], "neither"),
        ([f"v{n}=1%" for n in range(65)], "At most|at most"), (["a=b=1"], "neither"), (["ü=1"], "neither"),
    ],
)  # fmt: skip
def test_words_that_make_no_sense_are_told_so(words: list[str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse(words, NONE)


def test_shares_that_come_to_a_hundred_percent_by_a_hair_are_enough() -> None:
    assert len(parse([f"v{n}=14.285714286%" for n in range(7)], NONE).shares) == 7


_names = st.text(
    alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="=%"), min_size=1, max_size=40
)
_rules = st.builds(
    Rule,
    service=st.just("orders"),
    revision=st.integers(0, 2**53 - 1),
    shares=st.dictionaries(_names, st.integers(0, 100).map(lambda n: n / 1000), max_size=10).map(lambda d: tuple(sorted(d.items()))),
    weights=st.dictionaries(_names, st.integers(0, 10_000).map(lambda n: n / 10), max_size=10).map(lambda d: tuple(sorted(d.items()))),
)  # fmt: skip


@given(_rules)
def test_a_rule_is_read_as_it_was_written(rule: Rule) -> None:
    assert rules.decode("orders", b"%d %b" % (rule.revision, rules.encode(rule))) == rule


@given(_rules)
def test_a_rule_can_be_said_again_as_it_is_described(rule: Rule) -> None:
    words = describe(rule).split()
    if not words:
        assert rule.is_empty
        return
    again = parse(words, Rule("orders", rule.revision))
    assert (dict(again.weights), again.revision) == (dict(rule.weights), rule.revision)
    assert dict(again.shares) == pytest.approx(dict(rule.shares))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_poison(raw: bytes) -> None:
    for each in (raw, b"1 " + raw):
        try:
            rules.decode("orders", each)
        except PoisonedRecord:
            continue


@pytest.mark.parametrize(
    ("service", "raw"),
    [
        ("orders", b""), ("orders", b"1"), ("orders", b"1 {}"), ("orders", b"x {}"), ("Orders", b'1 {"shares":[],"weights":[]}'),
        ("orders", b'1 {"shares":[["v",2]],"weights":[]}'), ("orders", b'1 {"shares":[["v",0.6],["w",0.6]],"weights":[]}'),
        ("orders", b'1 {"shares":[["v",-1]],"weights":[]}'), ("orders", b'1 {"shares":[],"weights":[["a",1e9]]}'),
        ("orders", b'1 {"shares":[[1,2,3]],"weights":[]}'), ("orders", b'1 {"shares":[],"weights":[["a b",1]]}'),
        ("orders", b'99999999999999999 {"shares":[],"weights":[]}'), ("orders", b"1 " + b"[" * 20_000), ("orders", b"1 []"), ("orders", b"1 null"),
    ],
)  # fmt: skip
def test_a_malformed_rule_is_poison(service: str, raw: bytes) -> None:
    with pytest.raises(PoisonedRecord):
        rules.decode(service, raw)


# ------------------------------------------------------------------------------------------ in Redis


class Operator:
    """The verbs of the tests."""

    def __init__(self, registry: BlockingRegistry, keys: Keys, settings: RegistrySettings) -> None:
        self.registry, self.keys, self.settings = registry, keys, settings

    def say(self, *words: str) -> RuleSet:
        return self.registry.run(operations.put_rule(self.keys, self.settings, parse(words, self.read())))

    def put(self, rule: Rule) -> RuleSet:
        return self.registry.run(operations.put_rule(self.keys, self.settings, rule))

    def restore(self, rule: Rule) -> RuleSet:
        return self.registry.run(operations.restore_rule(self.keys, self.settings, rule))

    def clear(self) -> RuleSet:
        return self.registry.run(operations.clear_rule(self.keys, self.settings, "orders"))

    def read(self) -> Rule:
        stored = self.registry.run(operations.read_rules(self.keys))
        return next((rules.decode(service, raw) for service, raw in stored if service == "orders"), NONE)


@pytest.fixture
def operator(registry: BlockingRegistry, keys: Keys, registry_settings: RegistrySettings) -> Operator:
    return Operator(registry, keys, registry_settings)


def test_a_rule_that_is_put_gets_the_next_revision_and_one_log_entry(operator: Operator, store: redis.Redis) -> None:
    first = operator.say("v2=5%")
    second = operator.say("v2=10%")
    assert (first.outcome, second.outcome) == ("changed", "changed")
    assert second.revision > first.revision
    assert second.position.seq == first.position.seq + 1
    assert describe(operator.read()) == "v2=10%"
    assert operator.read().revision == second.revision
    ((_, fields),) = cast("Any", store.xrevrange(operator.keys.log, count=1))
    assert (fields["op"], fields["service"]) == ("rule", "orders")
    assert store.ttl(operator.keys.rules) > 0


def test_of_two_operators_at_the_same_time_the_second_is_told(operator: Operator) -> None:
    base = operator.read()
    first = operator.put(parse(["v2=5%"], base))
    second = operator.put(parse(["v3=5%"], base))
    assert (second.outcome, second.revision, second.position) == ("conflict", first.revision, first.position)
    assert describe(operator.read()) == "v2=5%"


def test_a_rule_is_restored_only_over_an_older_one(operator: Operator, store: redis.Redis) -> None:
    rule = Rule("orders", operator.say("v2=5%").revision, shares=(("v2", 0.05),))
    assert operator.restore(rule).outcome == "same"
    store.delete(operator.keys.rules)
    assert operator.restore(rule).outcome == "changed"
    assert operator.read() == rule
    assert operator.restore(rule).outcome == "same"


def test_a_rule_that_was_cleared_is_brought_back_by_nobody(operator: Operator, store: redis.Redis) -> None:
    rule = Rule("orders", operator.say("v2=5%").revision, shares=(("v2", 0.05),))
    operator.clear()
    assert operator.read().is_empty
    assert operator.restore(rule).outcome == "same"
    # Nor by a rule that is set when Redis has forgotten that there ever was one.
    store.delete(operator.keys.rules)
    assert operator.say("v3=5%").revision > rule.revision
    assert operator.restore(rule).outcome == "same"
    # Also if a second clearing finds nothing.
    store.delete(operator.keys.rules)
    operator.clear()
    assert operator.restore(rule).outcome == "same"


def test_a_rule_of_ten_megabytes_does_not_travel(operator: Operator, store: redis.Redis) -> None:
    operator.say("v2=5%")
    store.hset(operator.keys.rules, "fat", "x" * 10_000_000)
    assert [service for service, _ in operator.registry.run(operations.read_rules(operator.keys))] == ["orders"]
    snapshot = operator.registry.run(operations.snapshot(operator.keys))
    assert dict(snapshot.rules)["fat"] == b""


# ------------------------------------------------------------------------------------------ in the directories


def said(mesh: Mesh) -> str:
    rule = mesh.directory.table.rules.get("orders")
    return describe(rule) if rule is not None else ""


def unpolled(namespace: str) -> Settings:
    return fast_settings(namespace, registry={"poll_seconds": 600, "lease_seconds": 600, "heartbeat_seconds": 200})


async def test_every_directory_applies_a_rule_at_once_and_a_later_one_finds_it(
    namespace: str, redis_url: str, operator: Operator
) -> None:
    settings = unpolled(namespace)
    async with mesh_of(settings, redis_url) as one, mesh_of(settings, redis_url) as two:
        for words, expected in ((["v2=5%", "a=2"], "v2=5% a=2"), (["v2="], "a=2"), (["a="], "")):
            operator.say(*words)
            await until(lambda expected=expected: said(one) == said(two) == expected)  # type: ignore[misc]
        operator.say("v3=1%")
        async with mesh_of(settings, redis_url) as late:
            assert said(late) == "v3=1%"
        operator.clear()
        await until(lambda: said(one) == "")


async def test_rules_survive_a_flush_because_directories_put_them_back(
    settings: Settings, redis_url: str, operator: Operator, store: redis.Redis, registry: BlockingRegistry
) -> None:
    async with mesh_of(settings, redis_url, "users") as users, mesh_of(settings, redis_url) as other:
        await users.membership.register()
        operator.say("v2=5%")
        await until(lambda: said(users) == said(other) == "v2=5%")
        rule = operator.read()
        store.delete(*store.scan_iter(f"{operator.keys.prefix}*"))
        await until(lambda: operator.read() == rule)
        assert said(users) == said(other) == "v2=5%"


async def test_an_older_rule_from_a_stale_replica_gives_way_to_the_one_that_is_known(
    settings: Settings, redis_url: str, operator: Operator, store: redis.Redis
) -> None:
    async with mesh_of(settings, redis_url, "users") as users:
        await users.membership.register()
        operator.say("v2=5%")
        stale = {name: store.dump(name) for name in (operator.keys.head, operator.keys.log, operator.keys.rules)}
        operator.say("v2=50%")
        await until(lambda: said(users) == "v2=50%")
        rule = operator.read()
        with store.pipeline(transaction=True) as restore:
            for name, content in stale.items():
                restore.restore(name, 60_000, content, replace=True)  # type: ignore[arg-type]
            restore.execute()
        await until(lambda: operator.read() == rule)
        assert said(users) == "v2=50%"


async def test_a_poisoned_rule_changes_nothing_but_a_warning(
    settings: Settings, redis_url: str, operator: Operator, store: redis.Redis
) -> None:
    operator.say("v2=5%")
    with structlog.testing.capture_logs() as logs:
        async with mesh_of(settings, redis_url) as caller:
            store.hset(operator.keys.rules, "users", "rubbish")
            store.hset(operator.keys.rules, "orders", "9007199254740000 [1]")
            await caller.directory._take_snapshot()
            assert said(caller) == "v2=5%"
    assert [line["event"] for line in logs] == ["poisoned record ignored"] * 2


async def test_rules_are_kept_on_disk_for_whoever_starts_while_redis_is_away(
    settings: Settings, redis_url: str, operator: Operator, tmp_path: Path
) -> None:
    copy = tmp_path / "directory.json"
    operator.registry.run(operations.heartbeat(operator.keys, operator.settings, instance("orders"), Load()))
    operator.say("v2=5%")
    async with mesh_of(settings, redis_url, cache_file=copy):
        await until(copy.exists)
    async with mesh_of(settings, "redis://127.0.0.1:1", cache_file=copy) as restarted:
        assert said(restarted) == "v2=5%"
