"""The guard as it stands before views: a real process over a socket, real tokens, real keys."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import flask_principal
import pytest
from flask import Blueprint, Flask, g
from flask.views import MethodView, View
from flask_principal import Permission, RoleNeed
from joserfc.jwk import ECKey
from pydantic import BaseModel

from app import settings
from app.asgi import Process
from app.auth import Asked, Rule, bearer, callers, owner, owner_or, public, requires, requires_role
from app.errors import Misconfigured, Unavailable
from app.service import Service
from app.web import API, await_, cached_view, demand, may, principal
from app.web.factory import create_app
from app.web.views.current import EXTENSION
from tests.auth.mutants import mutant
from tests.tokens import TestIssuer
from tests.tokens import bearer as carrying
from tests.web.harness import serving

READ, WRITE, ADMIN = requires("things:read"), requires("things:write"), requires_role("admin")
MUTANTS = 300

made: list[str] = []


def who() -> str:
    asking = principal()
    return "nobody" if asking is None else asking.subject


class ThingPath(BaseModel):
    thing_id: int


class UserPath(BaseModel):
    user_id: int


async def owner_of(thing_id: int) -> int | None:
    await_(_moment())
    return {1: 7, 2: 8}.get(thing_id)


def owner_now(thing_id: int) -> int | None:
    return {1: 7, 2: 8}.get(thing_id)


async def _moment() -> None:
    return None


api = API("things", __name__, prefix="/things")


@api.get("/async")
@READ
async def asynchronous() -> Any:
    """For who may read."""
    return {"who": who(), "loop": threading.current_thread() is threading.main_thread()}


@api.get("/plain")
@READ
def plain() -> Any:
    """For who may read, in a plain view."""
    return {"who": who(), "loop": threading.current_thread() is threading.main_thread(), "may": may(WRITE)}


@api.get("/open")
@public
async def opened() -> Any:
    """For everybody."""
    return {"who": "anybody"}


@api.get("/asks")
@public
async def asks() -> Any:
    """For everybody, and it asks who it is."""
    return {"who": who(), "may": may(WRITE), "admin": may(ADMIN), "own": may(owner(of="user_id"), user_id=7)}


@api.post("/demands")
@public
async def demands() -> Any:
    """For everybody, and then not."""
    demand(WRITE)
    return {"who": who()}


@api.get("/own/<int:user_id>")
@owner_or("things:admin", of="user_id")
async def own(path: UserPath) -> Any:
    """A user's own."""
    return {"who": who()}


@api.get("/looked-up/<int:thing_id>")
@(READ & owner(of=owner_of))
async def looked_up(path: ThingPath) -> Any:
    """The owner is looked up, asynchronously."""
    return {"who": who()}


@api.get("/looked-up-plain/<int:thing_id>")
@owner(of=owner_of)
def looked_up_plain(path: ThingPath) -> Any:
    """The same for a plain view."""
    return {"who": who()}


@api.get("/looked-up-now/<int:thing_id>")
@owner(of=owner_now)
async def looked_up_now(path: ThingPath) -> Any:
    """The owner is looked up by a plain function."""
    return {"who": who()}


@api.get("/either")
@(WRITE & ADMIN | requires("things:all"))
async def either() -> Any:
    """Both, or a third."""
    return {"who": who()}


@api.get("/not")
@~requires_role("banned")
async def turned_round() -> Any:
    """For all but some."""
    return {"who": who()}


@api.get("/called")
@callers("orders", "users")
async def called() -> Any:
    """For services."""
    return {"who": who()}


@api.get("/asked-for")
@requires("things:read", introspect=True)
async def asked_for() -> Any:
    """The issuer is asked as well."""
    return {"who": who()}


@api.get("/spoken-for")
@public
async def spoken_for() -> Any:
    """In whose name peers would be called."""
    return {"token": bearer.user_token(), "in a task": await asyncio.create_task(_spoken_for())}


@api.get("/spoken-for-plain")
@public
def spoken_for_plain() -> Any:
    """The same in a plain view."""
    return {"token": bearer.user_token(), "in a task": await_(_spoken_for())}


async def _spoken_for() -> str | None:
    return bearer.user_token()


@api.get("/cached")
@READ
@cached_view(ttl=60)
async def kept() -> Any:
    """Cached, each user's own though nobody says so."""
    made.append(who())
    return {"who": who()}


@api.get("/cached-per-user")
@READ
@cached_view(ttl=60, per="user")
async def kept_per_user() -> Any:
    """Cached per user."""
    made.append(who())
    return {"who": who()}


@api.get("/cached-for-all")
@ADMIN
@cached_view(ttl=60, public=True)
async def kept_for_all() -> Any:
    """The same for all who may see it."""
    made.append(who())
    return {"made": len(made)}


@api.get("/principal/decorated")
@READ
@Permission(RoleNeed("admin")).require(403)  # type: ignore[untyped-decorator]  # it has no types
async def decorated() -> Any:
    """By Flask-Principal, as a decorator."""
    return {"who": g.identity.id}


@api.get("/principal/decorated-plain")
@READ
@Permission(RoleNeed("admin")).require(403)  # type: ignore[untyped-decorator]  # it has no types
def decorated_plain() -> Any:
    """The same over a plain view."""
    return {"who": g.identity.id}


@api.get("/principal/within")
@public
async def within() -> Any:
    """By Flask-Principal, as a context manager."""
    with Permission(RoleNeed("admin")).require(403):
        return {"who": g.identity.id}


@api.get("/principal/needs")
@public
def needs() -> Any:
    """What the identity provides."""
    return {"id": g.identity.id, "needs": sorted(map(str, g.identity.provides))}


class Shelf(MethodView):
    """Each method its own rule, and the class's for the rest."""

    @READ
    async def get(self) -> Any:
        return {"who": who()}

    @WRITE
    def post(self) -> Any:
        return {"who": who()}

    async def delete(self) -> Any:
        return {"who": who()}


class Sign(View):
    """One for all methods."""

    methods = ("GET", "PUT")

    def dispatch_request(self) -> Any:
        return {"who": who()}


shelves = Blueprint("shelves", __name__, url_prefix="/shelves")
shelves.add_url_rule("/", view_func=ADMIN(Shelf).as_view("shelf"))
shelves.add_url_rule("/sign", view_func=READ(Sign).as_view("sign"))

outer, inner, silent = (Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("outer", "inner", "silent"))
for each in (outer, inner, silent):
    each.add_url_rule("/view", "view", lambda: {"who": who()})
inner.add_url_rule("/own", "own", public(lambda: {"who": "anybody"}))
inner.register_blueprint(silent)
outer.register_blueprint(inner)
ADMIN(outer)
WRITE(inner)

BLUEPRINTS = (api, shelves, outer)

Prepare = Callable[[Flask], None]
StartThings = Callable[..., AbstractAsyncContextManager[aiohttp.ClientSession]]


@pytest.fixture
def start(redis_url: str, namespace: str, issuer: TestIssuer, tmp_path: Any) -> StartThings:
    """Serves the things of this file, until the block is over."""

    @asynccontextmanager
    async def started(prepare: Prepare | None = None, **facts: Any) -> AsyncIterator[aiohttp.ClientSession]:
        made.clear()
        config = settings.load(
            redis_url=redis_url, data_dir=tmp_path, registry={"namespace": namespace}, auth={"jwks_file": issuer.jwks_file}
        )  # fmt: skip
        process = Process(Service("things", blueprints=BLUEPRINTS, **facts), config, "http://127.0.0.1:9")
        if prepare is not None:
            prepare(process.flask)
        async with serving(process) as client:
            yield client

    return started


@pytest.fixture
async def client(start: StartThings) -> AsyncIterator[aiohttp.ClientSession]:
    async with start() as session:
        yield session


@pytest.fixture
def reader(issuer: TestIssuer) -> str:
    return issuer.user(7, "things:read")


async def ask(
    client: aiohttp.ClientSession, path: str, token: str | None = None, method: str = "GET", **headers: str
) -> tuple[int, Any, str | None]:
    """Status, parsed body (of a problem: its code) and WWW-Authenticate."""
    sent = headers | (carrying(token) if token is not None else {})
    async with client.request(method, path, headers=sent, allow_redirects=False) as answer:
        body = await answer.json(content_type=None) if method != "HEAD" else None
        if answer.status >= 400 and body is not None:
            assert answer.content_type == "application/problem+json"
            body = body["code"]
        return answer.status, body, answer.headers.get("WWW-Authenticate")


async def statuses(client: aiohttp.ClientSession, path: str, *tokens: str | None, method: str = "GET") -> list[int]:
    return [(await ask(client, path, token, method))[0] for token in tokens]


# ------------------------------------------------------------------------------------------------ refusals


async def test_who_has_no_token_is_asked_for_one(client: aiohttp.ClientSession) -> None:
    for path in ("/things/async", "/things/plain"):
        assert await ask(client, path) == (401, "unauthorized", 'Bearer realm="mesh"')


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Bearer nonsense", "The token is malformed"),
        ("Bearer", "The token is malformed"),
        ("Bearer ", "The token is malformed"),
        ("Basic dXNlcjpwYXNz", "It is not a bearer token"),
        ("", "It is not a bearer token"),
        ("Bearer a.b.c, Bearer d.e.f", "The token is malformed"),
        ('Bearer "x"\xff', "The token is malformed"),
    ],
)
async def test_a_token_that_is_not_believed_is_refused_with_its_reason(
    client: aiohttp.ClientSession, header: str, said: str
) -> None:
    wanted = f'Bearer realm="mesh", error="invalid_token", error_description="{said}"'
    assert await ask(client, "/things/async", Authorization=header) == (401, "invalid_token", wanted)


async def test_an_expired_token_and_one_for_others_say_so(client: aiohttp.ClientSession, issuer: TestIssuer) -> None:
    for token, said in (
        (issuer.user(7, exp=1), "The token has expired"),
        (issuer.user(7, aud="orders"), "The token is meant for somebody else"),
    ):
        wanted = f'Bearer realm="mesh", error="invalid_token", error_description="{said}"'
        assert (await ask(client, "/things/async", token))[2] == wanted


async def test_who_lacks_a_scope_is_told_which(client: aiohttp.ClientSession, issuer: TestIssuer) -> None:
    wanted = 'Bearer realm="mesh", error="insufficient_scope", scope="things:read"'
    assert await ask(client, "/things/async", issuer.user(7, "x")) == (403, "forbidden", wanted)


async def test_whom_no_scope_would_help_is_told_none(client: aiohttp.ClientSession, reader: str) -> None:
    for path in ("/things/looked-up/2", "/things/called"):
        assert await ask(client, path, reader) == (403, "forbidden", 'Bearer realm="mesh", error="insufficient_scope"')


async def test_the_scheme_is_written_in_any_case(client: aiohttp.ClientSession, reader: str) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        assert (await ask(client, "/things/async", Authorization=f"{scheme} {reader}"))[0] == 200


async def test_a_token_in_the_query_is_no_token(client: aiohttp.ClientSession, reader: str) -> None:
    assert (await ask(client, f"/things/async?access_token={reader}"))[0] == 401


async def test_an_unknown_path_and_method_are_what_they_were(client: aiohttp.ClientSession) -> None:
    assert [(await ask(client, path))[0] for path in ("/nowhere", "/things/nowhere")] == [404, 404]
    assert (await ask(client, "/things/async", method="PUT"))[0] == 405


async def test_options_are_answered_by_flask_itself(client: aiohttp.ClientSession) -> None:
    async with client.options("/things/async") as answer:
        assert (answer.status, sorted(answer.headers["Allow"].split(", "))) == (200, ["GET", "HEAD", "OPTIONS"])


async def test_of_hundreds_of_forgeries_none_passes_and_none_is_a_failure(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    rng, foreign = random.Random(7), ECKey.generate_key("P-256")
    for _ in range(MUTANTS):
        forged = mutant(issuer.user(7), rng, foreign)
        # What no client library puts into a header is not asked with one.
        sent = "".join(letter for letter in forged if " " < letter < "\x7f")
        if sent.count(".") == 2 and sent != forged:
            continue
        assert (await ask(client, "/things/async", sent))[0] == 401, sent
        assert (await ask(client, "/things/open", sent))[0] == 200, sent


# ------------------------------------------------------------------------------------------------ the start


def served(*blueprints: Blueprint, **facts: Any) -> Any:
    return create_app(Service("things", blueprints=blueprints, **facts), settings.load())


def test_a_route_of_which_nobody_says_who_may_use_it_stops_the_start_and_is_named() -> None:
    blueprint = Blueprint("b", __name__, url_prefix="/b")
    blueprint.add_url_rule("/said", "said", public(lambda: ""))
    blueprint.add_url_rule("/silent/<int:x>", "silent", lambda x: "", methods=["GET", "POST"])
    with pytest.raises(Misconfigured) as refused:
        served(blueprint)
    said = refused.value.detail
    assert "Service things: nothing says who may use " in said
    assert (
        "GET /b/silent/<int:x> (b.silent), HEAD /b/silent/<int:x> (b.silent), POST /b/silent/<int:x> (b.silent)" in said
    )
    assert "/b/said" not in said


def test_one_method_of_a_class_that_says_nothing_stops_the_start() -> None:
    class Half(MethodView):
        @READ
        def get(self) -> str:
            return ""

        def post(self) -> str:
            return ""

    blueprint = Blueprint("b", __name__)
    blueprint.add_url_rule("/half", view_func=Half.as_view("half"))
    with pytest.raises(Misconfigured, match=r"use POST /half \(b\.half\); declare"):
        served(blueprint)


def test_a_blueprint_may_speak_for_all_of_its_routes_also_for_its_files() -> None:
    blueprint = ADMIN(Blueprint("b", __name__, static_folder="."))
    blueprint.add_url_rule("/x", "x", lambda: "")
    app = served(blueprint)
    assert {app.rules["b.x", "GET"], app.rules["b.static", "GET"]} == {ADMIN}


async def test_a_route_that_came_later_is_refused_to_everybody(start: StartThings, reader: str) -> None:
    def late(app: Flask) -> None:
        app.add_url_rule("/late", "late", lambda: {"leaked": True})

    async with start(late) as client:
        assert [(await ask(client, "/late", token))[:2] for token in (None, reader)] == [(500, "misconfigured")] * 2
        assert (await ask(client, "/late", method="OPTIONS"))[0] == 200


# ------------------------------------------------------------------------------------------------ rules at views


async def test_a_view_async_or_plain_knows_who_asks(client: aiohttp.ClientSession, issuer: TestIssuer) -> None:
    token = issuer.user(7, "things:read things:write")
    assert (await ask(client, "/things/async", token))[1] == {"who": "7", "loop": True}
    assert (await ask(client, "/things/plain", token))[1] == {"who": "7", "loop": False, "may": True}


async def test_requests_on_one_connection_do_not_know_of_one_another(start: StartThings, issuer: TestIssuer) -> None:
    async with start() as client:
        told = [
            (await ask(client, "/things/asks", token))[1]["who"]
            for token in (issuer.user(7), None, issuer.user(8), issuer.client("orders"), None)
        ]
    assert told == ["7", "nobody", "8", "orders", "nobody"]


async def test_a_public_route_takes_anybody_and_minds_a_bad_token_only_if_it_asks(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    expired = issuer.user(7, exp=1)
    assert await statuses(client, "/things/open", None, expired, "nonsense", issuer.user(7)) == [200] * 4
    assert (await ask(client, "/things/asks", expired))[:2] == (401, "invalid_token")
    assert (await ask(client, "/livez", expired))[0] == 200


async def test_may_answers_for_strangers_users_and_administrators(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    async def told(token: str | None) -> Any:
        return (await ask(client, "/things/asks", token))[1]

    assert await told(None) == {"who": "nobody", "may": False, "admin": False, "own": False}
    assert await told(issuer.user(7, "things:write")) == {"who": "7", "may": True, "admin": False, "own": True}
    assert await told(issuer.user(8, "", roles=("admin",))) == {"who": "8", "may": False, "admin": True, "own": False}


async def test_demand_refuses_as_a_rule_does(client: aiohttp.ClientSession, issuer: TestIssuer) -> None:
    path, method = "/things/demands", "POST"
    assert await ask(client, path, method=method) == (401, "unauthorized", 'Bearer realm="mesh"')
    wanted = 'Bearer realm="mesh", error="insufficient_scope", scope="things:write"'
    assert await ask(client, path, issuer.user(7, "x"), method) == (403, "forbidden", wanted)
    assert await ask(client, path, issuer.user(7, "things:write"), method) == (200, {"who": "7"}, None)


async def test_an_owner_is_found_by_a_variable_or_by_a_function(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    seven, eight, admin, program = (
        issuer.user(7, "things:read"),
        issuer.user(8, "things:read"),
        issuer.user("admin", "things:admin things:read"),
        issuer.client("7", "things:read"),
    )
    everybody = (seven, eight, admin, program, None)
    assert await statuses(client, "/things/own/7", *everybody) == [200, 403, 200, 403, 401]
    for path in ("looked-up", "looked-up-plain", "looked-up-now"):
        assert await statuses(client, f"/things/{path}/1", *everybody) == [200, 403, 403, 403, 401]
        assert await statuses(client, f"/things/{path}/2", *everybody) == [403, 200, 403, 403, 401]
        assert await statuses(client, f"/things/{path}/3", *everybody) == [403, 403, 403, 403, 401]


async def test_and_or_and_not_at_a_view(client: aiohttp.ClientSession, issuer: TestIssuer) -> None:
    tokens = (
        issuer.user(7, "things:write"),
        issuer.user(7, "", roles=("admin",)),
        issuer.user(7, "things:write", roles=("admin",)),
        issuer.user(7, "things:all"),
        None,
    )
    assert await statuses(client, "/things/either", *tokens) == [403, 403, 200, 200, 401]
    banned = issuer.user(7, roles=("banned",))
    assert await statuses(client, "/things/not", issuer.user(7), issuer.client("x"), banned, None) == [
        200,
        200,
        403,
        401,
    ]


async def test_callers_are_services_for_themselves_or_in_a_users_name(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    tokens = (
        issuer.client("orders", "", aud="things"),
        issuer.user(7, "", act={"sub": "users"}),
        issuer.client("payments", "things:read"),
        issuer.user(7, client_id="orders"),
        issuer.user("orders"),
        None,
    )
    assert await statuses(client, "/things/called", *tokens) == [200, 200, 403, 403, 403, 401]


async def test_a_service_may_name_its_callers_for_all_but_the_public_routes(
    start: StartThings, issuer: TestIssuer
) -> None:
    async with start(callers=("orders",)) as client:
        orders, others, user = (issuer.client(name, "things:read") for name in ("orders", "payments", "7"))
        assert await statuses(client, "/things/async", orders, others, user, None) == [200, 403, 403, 401]
        assert await statuses(client, "/things/async", issuer.client("orders", "x")) == [403]
        assert await statuses(client, "/things/open", orders, others, None) == [200] * 3


async def test_a_class_has_a_rule_for_each_method_and_head_goes_with_get(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    tokens = (issuer.user(7, "things:read"), issuer.user(7, "things:write"), issuer.user(7, "", roles=("admin",)), None)
    expected = {"GET": [200, 403, 403, 401], "HEAD": [200, 403, 403, 401]}
    expected |= {"POST": [403, 200, 403, 401], "DELETE": [403, 403, 200, 401]}
    for method, wanted in expected.items():
        assert await statuses(client, "/shelves/", *tokens, method=method) == wanted
    for method in ("GET", "PUT", "HEAD"):
        assert await statuses(client, "/shelves/sign", *tokens, method=method) == [200, 403, 403, 401]


async def test_of_nested_blueprints_the_nearest_counts(client: aiohttp.ClientSession, issuer: TestIssuer) -> None:
    tokens = (issuer.user(7, "things:write"), issuer.user(7, "", roles=("admin",)), None)
    assert await statuses(client, "/outer/view", *tokens) == [403, 200, 401]
    assert await statuses(client, "/outer/inner/view", *tokens) == [200, 403, 401]
    assert await statuses(client, "/outer/inner/silent/view", *tokens) == [200, 403, 401]
    assert await statuses(client, "/outer/inner/own", *tokens) == [200, 200, 200]


async def test_a_rule_that_fails_lets_nobody_in(start: StartThings, issuer: TestIssuer) -> None:
    class Broken(Rule):
        def holds(self, asked: Asked) -> bool:
            raise ZeroDivisionError

    def broken(app: Any) -> None:
        app.rules = {**app.rules, ("things.asynchronous", "GET"): Broken()}

    async with start(broken) as client:
        assert (await ask(client, "/things/async", issuer.user(7)))[:2] == (500, "internal_error")


async def test_where_a_rule_says_so_the_issuer_is_asked_before_the_view_and_after_the_token(
    start: StartThings, issuer: TestIssuer, reader: str
) -> None:
    asked: list[str] = []
    apps: list[Flask] = []
    answer: dict[str, Any] = {"active": True}

    async def endpoint(form: Mapping[str, str]) -> Mapping[str, Any]:
        asked.append(form["token"])
        if not answer:
            raise Unavailable("The issuer is away", retry_after=1.0)
        return answer

    async with start(apps.append) as client:
        assert await statuses(client, "/things/open", None) == [200]  # it has started
        apps[0].extensions[EXTENSION].auth.introspector._ask = endpoint
        assert await statuses(client, "/things/asked-for", reader, reader, None, "nonsense") == [200, 200, 401, 401]
        assert await statuses(client, "/things/async", issuer.user(8, "things:read")) == [200]
        assert asked == [reader]
        answer["active"] = False
        other = issuer.user(8, "things:read")
        wanted = 'Bearer realm="mesh", error="invalid_token", error_description="The token was revoked"'
        assert await ask(client, "/things/asked-for", other) == (401, "invalid_token", wanted)
        answer.clear()
        assert (await ask(client, "/things/asked-for", other))[:2] == (503, "unavailable")


@pytest.mark.parametrize("path", ["/things/spoken-for", "/things/spoken-for-plain"])
async def test_peers_are_called_in_the_name_of_the_user_who_asks_and_of_nobody_else(
    client: aiohttp.ClientSession, issuer: TestIssuer, path: str
) -> None:
    user, stand_in = issuer.user(7), issuer.user(7, act={"sub": "orders"})
    expected = {user: user, stand_in: stand_in, None: None, issuer.client("orders"): None, issuer.user(7, exp=1): None}
    for token, spoken in expected.items():
        assert (await ask(client, path, token))[1] == {"token": spoken, "in a task": spoken}


# ------------------------------------------------------------------------------------------------ the cache


async def test_what_is_cached_behind_the_guard_is_never_anothers(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    seven, eight, nobodys = (issuer.user(7, "things:read"), issuer.user(8, "things:read"), issuer.user(9, ""))
    for path in ("/things/cached", "/things/cached-per-user"):
        told = [(await ask(client, path, token))[1] for token in (seven, eight, seven, eight)]
        assert told == [{"who": "7"}, {"who": "8"}, {"who": "7"}, {"who": "8"}]
        assert await statuses(client, path, nobodys, None, "nonsense") == [403, 401, 401]
    assert made == ["7", "8", "7", "8", "7", "8"]


async def test_what_is_kept_for_all_is_kept_for_all_who_may_see_it(
    client: aiohttp.ClientSession, issuer: TestIssuer
) -> None:
    path, admins = "/things/cached-for-all", [issuer.user(name, roles=("admin",)) for name in ("a", "b")]
    assert [(await ask(client, path, token))[1] for token in admins] == [{"made": 1}, {"made": 1}]
    assert await statuses(client, path, issuer.user(7), None) == [403, 401]


# ------------------------------------------------------------------------------------------------ Flask-Principal


@contextmanager
def loaded() -> Iterator[list[Any]]:
    """The identities of which Flask-Principal's signal tells."""
    heard: list[Any] = []

    def hear(sender: Any, identity: Any) -> None:
        heard.append(identity.id)

    with flask_principal.identity_loaded.connected_to(hear):
        yield heard


@pytest.mark.parametrize("installed", [False, True], ids=["on its own", "with Principal(app)"])
async def test_permissions_of_flask_principal_are_filled_from_the_token(
    start: StartThings, issuer: TestIssuer, installed: bool
) -> None:
    def install(app: Flask) -> None:
        app.secret_key = "test"
        flask_principal.Principal(app)

    admin = issuer.user("ada", "things:read", roles=("admin",))
    async with start(install if installed else None) as client:
        for path in ("decorated", "decorated-plain", "within"):
            assert (await ask(client, f"/things/principal/{path}", admin))[:2] == (200, {"who": "ada"})
            assert (await ask(client, f"/things/principal/{path}", issuer.user(7, "things:read")))[:2] == (
                403,
                "forbidden",
            )
        assert (await ask(client, "/things/principal/within"))[:2] == (403, "forbidden")
        assert (await ask(client, "/things/principal/needs"))[1] == {"id": None, "needs": []}
        with loaded() as heard:
            told = (await ask(client, "/things/principal/needs", admin))[1]
        assert heard == ["ada"]
    assert told["id"] == "ada"
    assert len(told["needs"]) == 3
    assert all(any(word in need for need in told["needs"]) for word in ("'ada'", "'admin'", "'things:read'"))


async def test_the_identity_of_a_request_is_not_the_next_ones(start: StartThings, issuer: TestIssuer) -> None:
    def install(app: Flask) -> None:
        app.secret_key = "test"
        flask_principal.Principal(app)

    async with start(install) as client:
        told = [
            (await ask(client, "/things/principal/needs", token))[1]["id"]
            for token in (issuer.user("ada"), None, issuer.user("bob"), None)
        ]
    assert told == ["ada", None, "bob", None]


async def test_without_the_package_nothing_is_filled(
    client: aiohttp.ClientSession, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "flask_principal")
    with loaded() as heard:
        assert (await ask(client, "/things/async", reader))[0] == 200
    assert heard == []


def test_outside_of_a_request_nobody_is_there() -> None:
    assert bearer.current.get() == bearer.NOBODY
    assert bearer.user_token() is None
