from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth import Asked, Principal, Rule, callers, owner, owner_or, public, requires, requires_role
from app.auth.rules import AllOf

USER = Principal("7", "demo-web", frozenset({"a:read", "a:write"}), frozenset({"editor"}), session="s")
PROGRAM = Principal("orders", "orders", frozenset({"a:read"}))
STAND_IN = Principal("7", "demo-web", frozenset({"a:read"}), session="s", actor="orders")

SCOPES, ROLES, NAMES = ("a", "b", "c"), ("admin", "editor"), ("orders", "users", "demo-web", "7")

principals = st.builds(
    Principal,
    subject=st.sampled_from(("7", "8", "orders", "users")),
    client_id=st.sampled_from(NAMES),
    scopes=st.frozensets(st.sampled_from(SCOPES)),
    roles=st.frozensets(st.sampled_from(ROLES)),
    session=st.sampled_from((None, "s")),
    actor=st.sampled_from((None, "orders", "users")),
)
leaves = st.one_of(
    st.just(public),
    st.builds(requires, st.sampled_from(SCOPES)),
    st.builds(lambda scope: requires(scope, introspect=True), st.sampled_from(SCOPES)),
    st.builds(requires_role, st.sampled_from(ROLES)),
    st.builds(callers, st.sampled_from(NAMES)),
    st.just(owner(of="user_id")),
    st.just(owner(of=lambda user_id: user_id)),
)
rules: st.SearchStrategy[Rule] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=8,
)
somebody = st.builds(Asked, principals, st.fixed_dictionaries({"user_id": st.sampled_from((7, 8, "7", None))}))
anybody = st.one_of(somebody, st.just(Asked(None, {"user_id": 7})))


def holds(rule: Rule, principal: Principal | None, **variables: Any) -> bool:
    return rule.holds(Asked(principal, variables))


# ------------------------------------------------------------------------------------------------ one rule


def test_public_holds_for_everybody() -> None:
    assert holds(public, None)
    assert holds(public, USER)
    assert public.is_public


def test_scopes_must_all_be_there() -> None:
    assert holds(requires("a:read", "a:write"), USER)
    assert not holds(requires("a:read", "a:write"), PROGRAM)
    assert not holds(requires("a:rea"), USER)
    assert not holds(requires("a:read"), None)


def test_a_role_is_the_users() -> None:
    assert holds(requires_role("editor"), USER)
    assert not holds(requires_role("editor"), PROGRAM)
    assert not holds(requires_role("editor"), None)


def test_a_caller_is_who_calls_now_for_itself_or_in_a_users_name() -> None:
    assert holds(callers("orders"), PROGRAM)
    assert holds(callers("orders", "users"), STAND_IN)
    assert not holds(callers("users"), PROGRAM)
    # A user's own client is no caller, whatever it is called; nor is a user.
    assert not holds(callers("demo-web", "7"), USER)
    assert not holds(callers("demo-web"), STAND_IN)
    assert not holds(callers("orders"), None)


def test_callers_and_scopes_are_both_asked_for() -> None:
    both = requires("a:read", callers=["orders"])
    assert holds(both, PROGRAM)
    assert not holds(both, USER)
    assert not holds(requires("a:write", callers=["orders"]), PROGRAM)
    assert holds(requires(callers=("orders",)), PROGRAM)


@pytest.mark.parametrize("of", ["user_id", lambda user_id: user_id], ids=["a variable", "a function"])
@pytest.mark.parametrize(
    ("found", "is_own"), [(7, True), ("7", True), (8, False), (None, False), ("07", False), (7.0, False), (77, False)]
)
def test_an_owner_is_the_user_of_exactly_that_name(of: Any, found: Any, is_own: bool) -> None:
    assert holds(owner(of=of), USER, user_id=found) is is_own
    assert not holds(owner(of=of), None, user_id=found)


def test_a_variable_that_is_not_there_has_no_owner() -> None:
    assert not holds(owner(of="usr_id"), USER, user_id=7)


def test_a_program_owns_nothing_and_its_owner_is_not_even_looked_up() -> None:
    def look(**_: Any) -> str:
        raise AssertionError

    assert not holds(owner(of=look), PROGRAM, order_id=1)
    assert not holds(owner(of=look), None, order_id=1)
    assert not holds(owner(of="user_id"), PROGRAM, user_id="orders")


def test_an_owner_may_be_looked_up_asynchronously() -> None:
    async def look(order_id: int) -> int | None:
        await asyncio.sleep(0)
        return {1: 7, 2: 8}.get(order_id)

    def wait(awaitable: Any) -> Any:
        return asyncio.run(_awaited(awaitable))

    mine = owner(of=look)
    assert [mine.holds(Asked(USER, {"order_id": n}, wait)) for n in (1, 2, 3)] == [True, False, False]


def test_where_nobody_can_wait_an_asynchronous_owner_is_a_mistake() -> None:
    class Later:
        def __await__(self) -> Any:
            raise AssertionError

    with pytest.raises(RuntimeError, match="nobody can wait"):
        holds(owner(of=lambda order_id: Later()), USER, order_id=1)


def test_to_ask_for_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="asks for nothing"):
        requires()
    with pytest.raises(ValueError, match="asks for nothing"):
        owner_or(of="user_id")


# ------------------------------------------------------------------------------------------------ several


@given(rules, rules, anybody)
def test_and_or_are_what_they_say(one: Rule, other: Rule, asked: Asked) -> None:
    assert (one & other).holds(asked) is (one.holds(asked) and other.holds(asked))
    assert (one | other).holds(asked) is (one.holds(asked) or other.holds(asked))


@given(rules, rules, somebody)
def test_for_somebody_not_and_de_morgan_hold(one: Rule, other: Rule, asked: Asked) -> None:
    assert (~one).holds(asked) is not one.holds(asked)
    assert (~~one).holds(asked) is one.holds(asked)
    assert (~(one & other)).holds(asked) is (~one | ~other).holds(asked)
    assert (~(one | other)).holds(asked) is (~one & ~other).holds(asked)


@given(rules, rules)
def test_a_rule_turned_round_opens_no_door_to_strangers(one: Rule, other: Rule) -> None:
    stranger = Asked(None, {"user_id": 7})
    assert not (~one).holds(stranger)
    assert not (~~one).holds(stranger)
    assert not (~(one & other)).holds(stranger)
    assert not (~one | ~other).holds(stranger)


@given(rules, anybody)
def test_to_a_stranger_a_rule_opens_only_if_it_is_public(rule: Rule, asked: Asked) -> None:
    assert rule.holds(Asked(None, asked.variables)) is rule.is_public
    if rule.is_public:
        assert rule.holds(asked)


@given(rules)
def test_whoever_asks_the_issuer_is_asked_if_any_part_says_so(rule: Rule) -> None:
    assert (rule & requires("x", introspect=True)).introspects
    assert (requires("x", introspect=True) | rule).introspects
    assert (~requires("x", introspect=True)).introspects
    assert (rule & requires("x")).introspects is rule.introspects


def test_the_scopes_of_several_rules_are_named_once_in_their_order() -> None:
    rule = requires("b", "a") | requires("c", "a") & requires_role("admin")
    assert rule.scopes == ("a", "b", "c")


def test_not_names_no_scopes_since_more_would_not_help() -> None:
    assert (~requires("a")).scopes == ()


def test_a_rule_says_what_it_asks_for() -> None:
    rule = requires("b", "a") & owner(of="user_id") | requires_role("admin") & ~callers("users", "orders")
    assert str(rule) == "((a b & owner of user_id) | (role admin & ~called by orders or users))"
    assert str(owner_or("a", of="user_id")) == "(owner of user_id | a)"
    assert str(public) == "public"


def test_rules_are_values() -> None:
    assert requires("a", "b") == requires("b", "a")
    assert requires("a") & requires("b") == AllOf((requires("a"), requires("b")))
    assert len({requires("a"), requires("a"), requires_role("a")}) == 2


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
