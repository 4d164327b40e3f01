"""Who may do what with whose: every route of every service, asked by everybody. A route without a line here is a failure."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.services.conftest import Running, Start, until
from tests.tokens import TestIssuer

ORDINARY = "users:read users:write orders:read orders:write inventory:read"
OTHER = 8
OPEN_TO_ALL = frozenset({"health", "management"})

_serial = itertools.count()


@dataclass(frozen=True)
class Thing:
    """Something that belongs to a user, and what of it is nobody else's business."""

    variables: dict[str, Any]
    owner: int
    secret: str


Maker = Callable[["Shop"], Awaitable[Thing]]
Body = Callable[[Thing], Any]


@dataclass(frozen=True)
class Shop:
    users: Running
    inventory: Running
    orders: Running


@dataclass(frozen=True)
class Line:
    """One route: what each asker hears, and who may see the secret."""

    make: Maker
    stranger: int
    unscoped: int
    owner: int
    other: int
    admin: int
    orders: int
    stand_in: int
    payments: int
    body: Body | None = None
    shown_to: frozenset[str] = field(default_factory=lambda: frozenset({"owner", "admin"}))


ASKERS = ("stranger", "unscoped", "owner", "other", "admin", "orders", "stand_in", "payments")


def token_of(asker: str, issuer: TestIssuer, owner: int, service: str) -> str | None:
    """The token of `asker`, who may be the owner of the thing that is asked for."""
    tokens: dict[str, Callable[[], str | None]] = {
        "stranger": lambda: None,
        # The owner, by a client that was granted nothing.
        "unscoped": lambda: issuer.user(owner, "openid"),
        "owner": lambda: issuer.user(owner, ORDINARY),
        "other": lambda: issuer.user(OTHER, ORDINARY),
        "admin": lambda: issuer.user("admin", roles=("admin",)),
        # Services, for themselves and in the name of the owner.
        "orders": lambda: issuer.client("orders", "", aud=service),
        "stand_in": lambda: issuer.user(owner, "", aud=service, act={"sub": "orders"}),
        "payments": lambda: issuer.client("payments", "", aud=service),
    }
    return tokens[asker]()


# ------------------------------------------------------------------------------------------------ what is asked for


async def a_user(shop: Shop) -> Thing:
    email = f"secret-{next(_serial)}@example.com"
    made = await shop.users.ask("POST", "/users", 201, json={"name": "Ada", "email": email})
    return Thing({"user_id": made["id"]}, made["id"], email)


async def all_users(shop: Shop) -> Thing:
    return Thing({}, 7, "@example.com")


async def an_order(shop: Shop) -> Thing:
    body = {"user_id": 7, "items": [{"sku": "tea-earl-grey", "quantity": 1}]}
    made = await shop.orders.ask("POST", "/orders", 202, json=body)
    return Thing({"order_id": made["id"]}, 7, '"user_id":7')


async def a_confirmed_order(shop: Shop) -> Thing:
    made = await an_order(shop)

    async def confirmed() -> bool:
        return bool((await shop.orders.get(f"/orders/{made.variables['order_id']}"))["state"] == "confirmed")

    await until(confirmed)
    return made


async def no_order(shop: Shop) -> Thing:
    return Thing({"order_id": 10**6}, 7, '"user_id"')


async def an_item(shop: Shop) -> Thing:
    sku = f"pot-{next(_serial)}"
    await shop.inventory.ask("POST", "/inventory", 201, json={"sku": sku, "name": "A pot", "available": 3})
    return Thing({"sku": sku}, 7, "\0")


async def a_reservation(shop: Shop) -> Thing:
    reference = f"secret-{next(_serial)}"
    body = {"order_ref": reference, "items": [{"sku": "tea-earl-grey", "quantity": 1}]}
    await shop.inventory.ask("POST", "/inventory/reservations", 201, json=body)
    return Thing({"order_ref": reference}, 7, '"quantity"')


async def nothing(shop: Shop) -> Thing:
    return Thing({}, 7, "\0")


def whole_user(thing: Thing) -> Any:
    return {"name": "Eve", "email": f"eve-{next(_serial)}@example.com"}


def placing(thing: Thing) -> Any:
    return {"user_id": thing.owner, "items": [{"sku": "tea-earl-grey", "quantity": 1}]}


def reserving(thing: Thing) -> Any:
    return {"order_ref": f"new-{next(_serial)}", "items": [{"sku": "tea-earl-grey", "quantity": 1}]}


RESERVERS = frozenset({"admin", "orders", "stand_in"})

#                              stranger unscoped owner other admin orders stand_in payments
TABLE: dict[str, dict[tuple[str, str], Line]] = {
    "users": {
        ("GET", "/users"): Line(all_users, 401, 403, 403, 403, 200, 403, 403, 403, shown_to=frozenset({"admin"})),
        ("POST", "/users"): Line(nothing, 401, 403, 403, 403, 201, 403, 403, 403, whole_user),
        ("GET", "/users/<int:user_id>"): Line(a_user, 200, 200, 200, 200, 200, 200, 200, 200),
        ("PUT", "/users/<int:user_id>"): Line(a_user, 401, 403, 200, 403, 200, 403, 403, 403, whole_user),
        ("PATCH", "/users/<int:user_id>"): Line(a_user, 401, 403, 200, 403, 200, 403, 403, 403, lambda _: {"name": "E"}),
        ("DELETE", "/users/<int:user_id>"): Line(a_user, 401, 403, 204, 403, 204, 403, 403, 403),
    },
    "orders": {
        ("GET", "/orders"): Line(an_order, 401, 403, 200, 200, 200, 403, 403, 403),
        ("POST", "/orders"): Line(nothing, 401, 403, 202, 403, 202, 403, 403, 403, placing),
        ("GET", "/orders/<int:order_id>"): Line(an_order, 401, 403, 200, 403, 200, 403, 403, 403),
        ("POST", "/orders/<int:order_id>/cancel"): Line(an_order, 401, 403, 200, 403, 200, 403, 403, 403),
        ("DELETE", "/orders/<int:order_id>"): Line(an_order, 401, 403, 204, 403, 204, 403, 403, 403),
    },
    "inventory": {
        ("GET", "/inventory"): Line(nothing, 200, 200, 200, 200, 200, 200, 200, 200),
        ("POST", "/inventory"): Line(
            nothing, 401, 403, 403, 403, 201, 403, 403, 403,
            lambda _: {"sku": f"new-{next(_serial)}", "name": "New", "available": 1},
        ),
        ("GET", "/inventory/<sku>"): Line(an_item, 200, 200, 200, 200, 200, 200, 200, 200),
        ("PUT", "/inventory/<sku>"): Line(
            an_item, 401, 403, 403, 403, 200, 403, 403, 403, lambda _: {"name": "B", "available": 1}
        ),
        ("PATCH", "/inventory/<sku>"): Line(an_item, 401, 403, 403, 403, 200, 403, 403, 403, lambda _: {"available": 1}),
        ("DELETE", "/inventory/<sku>"): Line(an_item, 401, 403, 403, 403, 204, 403, 403, 403),
        ("POST", "/inventory/reservations"): Line(
            nothing, 401, 403, 403, 403, 201, 201, 201, 403, reserving, RESERVERS
        ),
        ("GET", "/inventory/reservations/<order_ref>"): Line(
            a_reservation, 401, 403, 403, 403, 200, 200, 200, 403, shown_to=RESERVERS
        ),
        ("DELETE", "/inventory/reservations/<order_ref>"): Line(
            a_reservation, 401, 403, 403, 403, 204, 204, 204, 403, shown_to=RESERVERS
        ),
    },
}  # fmt: skip


@pytest.fixture
async def shop(start: Start) -> Shop:
    return Shop(await start("users"), await start("inventory"), await start("orders"))


def routes(running: Running) -> set[tuple[str, str]]:
    """Every route of the service's own, by method and path."""
    return {
        (method, rule.rule)
        for rule in running.process.flask.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.partition(".")[0] not in OPEN_TO_ALL
    }


def address(rule: str, thing: Thing) -> str:
    for name, value in thing.variables.items():
        for variable in (f"<{name}>", f"<int:{name}>"):
            rule = rule.replace(variable, str(value))
    assert "<" not in rule
    return rule


async def ask(
    shop: Shop, service: str, method: str, rule: str, thing: Thing, token: str | None, body: Any = None
) -> httpx.Response:
    async with getattr(shop, service).as_(token) as asker:
        answer: httpx.Response = await asker.client.request(method, address(rule, thing), json=body)
    return answer


async def test_every_route_of_every_service_has_a_line_in_the_table(shop: Shop) -> None:
    for service, lines in TABLE.items():
        assert routes(getattr(shop, service)) == set(lines)


@pytest.mark.parametrize("service", TABLE)
async def test_everybody_hears_what_the_table_says_and_nobody_sees_what_is_anothers(
    shop: Shop, issuer: TestIssuer, service: str
) -> None:
    for (method, rule), line in TABLE[service].items():
        for asker in ASKERS:
            thing = await line.make(shop)
            body = None if line.body is None else line.body(thing)
            token = token_of(asker, issuer, thing.owner, service)
            answer = await ask(shop, service, method, rule, thing, token, body)
            told = f"{asker}: {method} {rule} → {answer.status_code} {answer.text}"
            assert answer.status_code == getattr(line, asker), told
            assert ("www-authenticate" in answer.headers) is (answer.status_code in (401, 403)), told
            if asker not in line.shown_to:
                assert thing.secret not in answer.text, told


async def test_the_owner_sees_what_the_others_do_not(shop: Shop, issuer: TestIssuer) -> None:
    for service, method, rule in (
        ("users", "GET", "/users/<int:user_id>"),
        ("orders", "GET", "/orders"),
        ("orders", "GET", "/orders/<int:order_id>"),
    ):
        thing = await TABLE[service][method, rule].make(shop)
        answer = await ask(shop, service, method, rule, thing, issuer.user(thing.owner, ORDINARY))
        assert thing.secret in answer.text


async def test_a_stranger_is_told_a_users_name_and_no_more(shop: Shop) -> None:
    async with shop.users.as_(None) as stranger:
        assert await stranger.get("/users/7") == {"id": 7, "name": "User7"}


async def test_a_token_that_is_not_believed_is_no_stranger(shop: Shop, issuer: TestIssuer) -> None:
    expired = issuer.user(7, ORDINARY, exp=1)
    for path in ("/users/7", "/users"):
        async with shop.users.as_(expired) as asker:
            assert (await asker.ask("GET", path, 401))["code"] == "invalid_token"


@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel")])
async def test_whether_anothers_order_exists_is_not_to_be_found_out(
    shop: Shop, issuer: TestIssuer, method: str, suffix: str
) -> None:
    there, not_there = await an_order(shop), await no_order(shop)
    answers = [
        await ask(shop, "orders", method, f"/orders/<int:order_id>{suffix}", thing, issuer.user(OTHER, ORDINARY))
        for thing in (there, not_there, Thing({"order_id": 2**63}, 7, ""))
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.json()["detail"] for answer in answers}) == 1


async def test_what_another_could_not_change_is_unchanged(shop: Shop, issuer: TestIssuer) -> None:
    user, order, item = await a_user(shop), await a_confirmed_order(shop), await an_item(shop)
    before = [
        await shop.users.get(f"/users/{user.owner}"),
        await shop.orders.get(f"/orders/{order.variables['order_id']}"),
        await shop.inventory.get(f"/inventory/{item.variables['sku']}"),
    ]
    for token in (None, issuer.user(OTHER, ORDINARY), issuer.client("payments", "")):
        for method, body in (("PUT", whole_user(user)), ("PATCH", {"name": "Eve"}), ("DELETE", None)):
            await ask(shop, "users", method, "/users/<int:user_id>", user, token, body)
        await ask(shop, "orders", "DELETE", "/orders/<int:order_id>", order, token)
        await ask(shop, "orders", "POST", "/orders/<int:order_id>/cancel", order, token)
        await ask(shop, "inventory", "PATCH", "/inventory/<sku>", item, token, {"available": 0})
    assert before == [
        await shop.users.get(f"/users/{user.owner}"),
        await shop.orders.get(f"/orders/{order.variables['order_id']}"),
        await shop.inventory.get(f"/inventory/{item.variables['sku']}"),
    ]


async def test_a_list_of_orders_shows_ones_own(shop: Shop, issuer: TestIssuer) -> None:
    for user_id in (7, OTHER, 7, OTHER, 7):
        body = {"user_id": user_id, "items": [{"sku": "tea-earl-grey", "quantity": 1}]}
        await shop.orders.ask("POST", "/orders", 202, json=body)

    async def listed(token: str, query: str = "") -> list[int]:
        async with shop.orders.as_(token) as asker:
            return [order["user_id"] for order in (await asker.get(f"/orders{query}"))["items"]]

    assert await listed(issuer.user(7, ORDINARY)) == [7, 7, 7]
    assert await listed(issuer.user(7, ORDINARY), "?user_id=7&limit=2") == [7, 7]
    assert await listed(issuer.user(OTHER, ORDINARY)) == [OTHER, OTHER]
    assert await listed(issuer.user(9, ORDINARY)) == []
    assert await listed(issuer.user("admin")) == [7, OTHER, 7, OTHER, 7]
    assert await listed(issuer.user("admin"), f"?user_id={OTHER}") == [OTHER, OTHER]
    async with shop.orders.as_(issuer.user(7, ORDINARY)) as asker:
        await asker.ask("GET", f"/orders?user_id={OTHER}", 403)


async def test_a_subject_that_only_looks_like_a_number_is_nobody_with_orders(
    shop: Shop, issuer: TestIssuer, subtests: pytest.Subtests
) -> None:
    await an_order(shop)
    for subject in ("07", " 7", "７", "7.0", "-7", "0", "9" * 250, "admin"):
        with subtests.test(subject=subject):
            async with shop.orders.as_(issuer.user(subject, ORDINARY)) as asker:
                await asker.ask("GET", "/orders", 403)
                await asker.ask("POST", "/orders", 403, json=placing(Thing({}, 7, "")))


async def test_a_token_for_another_service_opens_nothing(shop: Shop, issuer: TestIssuer) -> None:
    async with shop.inventory.as_(issuer.client("orders", aud="users")) as asker:
        await asker.ask("POST", "/inventory/reservations", 401, json=reserving(Thing({}, 7, "")))
    async with shop.inventory.as_(issuer.client("orders", aud=["users", "inventory"])) as asker:
        await asker.ask("POST", "/inventory/reservations", 201, json=reserving(Thing({}, 7, "")))
