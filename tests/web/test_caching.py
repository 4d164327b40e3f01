"""Views over a cache, through the bridge: what HTTP asks of a cache (RFC 9111, 9110)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, abort, g, request, session
from pydantic import BaseModel

from app import auth
from app import settings as app_settings
from app.errors import Conflict, Unavailable
from app.mesh.cache import Cache
from app.service import Service
from app.web import API
from app.web.bridge.switch import await_
from app.web.factory import ServiceApp, create_app
from app.web.views.caching import cached, cached_view
from app.web.views.current import EXTENSION, cache
from tests.tokens import TestIssuer, guard
from tests.web.harness import Exchange

Ask = Callable[..., Coroutine[Any, Any, Exchange]]
calls: list[str] = []


class ThingPath(BaseModel):
    thing_id: int


class ThingOut(BaseModel):
    id: int
    call: int


api = auth.public(API("things", __name__, prefix="/things"))
behaviour: dict[str, Any] = {}


def answer(**headers: str) -> Response:
    calls.append(request.full_path)
    return Response(f"call {len(calls)}", headers={name.replace("_", "-"): value for name, value in headers.items()})


@api.get("/<int:thing_id>", responses={200: ThingOut})
@cached_view(ttl=60, tags=("thing:{thing_id}",))
async def read(path: ThingPath) -> ThingOut:
    """Read."""
    calls.append("read")
    return ThingOut(id=path.thing_id, call=len(calls))


@api.get("/plain/<int:thing_id>", responses={200: ThingOut})
@cached_view(ttl=60)
def plain(path: ThingPath) -> tuple[ThingOut, int, dict[str, str]]:
    """Read, in a plain view."""
    calls.append("plain")
    await_(asyncio.sleep(0))
    return ThingOut(id=path.thing_id, call=len(calls)), 200, {"X-Thing": "yes"}


@api.get("/free")
@cached_view(ttl=60)
async def free() -> Any:
    """Whatever `behaviour` says."""
    if (gate := behaviour.get("gate")) is not None:
        await gate.wait()
    if (error := behaviour.get("error")) is not None:
        calls.append("error")
        raise error
    if "session" in behaviour:
        session["seen"] = 1
    if "abort" in behaviour:
        calls.append("abort")
        abort(behaviour["abort"])
    response = answer(**behaviour.get("headers", {}))
    response.status_code = behaviour.get("status", 200)
    if behaviour.get("streamed"):
        response.response = iter([b"a", b"b"])
    return response


@api.get("/varied")
@cached_view(ttl=60, vary=("Accept-Language",))
async def varied() -> Any:
    """In several languages."""
    return answer(Vary="Accept-Language")


@api.get("/mine")
@cached_view(ttl=60, per="user")
async def mine() -> Any:
    """Each user's own."""
    return answer(Cache_Control="private, max-age=30")


@api.get("/own")
@cached_view(ttl=60, per=lambda: request.headers.get("X-User", ""))
async def own() -> Any:
    """Each user's own, by a function."""
    return answer()


@api.get("/public")
@cached_view(ttl=60, public=True, max_age=5)
async def public() -> Any:
    """For everybody."""
    return answer()


@api.get("/short", responses={200: None})
@cached_view(ttl=10, stale=60)
async def short() -> Any:
    """Soon expired."""
    if "error" in behaviour:
        raise behaviour["error"]
    return answer() if "status" not in behaviour else ("broken", behaviour["status"])


@cached(ttl=60, tags=("total",))
async def total(number: int) -> int:
    calls.append("total")
    return number + len(calls)


@api.get("/total")
async def show_total() -> Any:
    """Through a cached function."""
    return {"total": await total(1)}


@api.post("/total")
@cached_view(ttl=60)
async def change_total() -> Any:
    """A method that is never cached; and it invalidates."""
    await cache.invalidate("total", "thing:7")
    return answer()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def local(clock: Clock) -> AsyncIterator[Cache]:
    calls.clear()
    behaviour.clear()
    changed = app_settings.load(cache={"jitter": 0.0, "retry_seconds": 0.0}).cache
    async with Cache(changed, clock=clock) as alone:
        yield alone


@pytest.fixture
def app(local: Cache, issuer: TestIssuer) -> ServiceApp:
    config = app_settings.load()
    made = create_app(Service("things", blueprints=(api,)), config)
    made.secret_key = "test"
    made.extensions[EXTENSION] = SimpleNamespace(cache=local, settings=config, auth=guard(issuer))
    return made


@pytest.fixture
def ask(app: ServiceApp) -> Ask:
    async def ask(path: str, method: str = "GET", **headers: str) -> Exchange:
        raw, _, query = path.partition("?")
        sent = [
            (b"host", b"x"),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ]
        scope = {"method": method, "path": raw, "raw_path": raw.encode(), "query_string": query.encode()}
        return await Exchange(headers=sent, **scope).run(app.asgi_app)

    return ask


def header(exchange: Exchange, name: str) -> str:
    return ", ".join(value.decode() for key, value in exchange.headers if key == name.encode())


async def test_a_view_runs_once_and_its_answer_says_how_old_it_is(ask: Ask, clock: Clock) -> None:
    first = await ask("/things/7")
    clock.now += 20.5
    second = await ask("/things/7")
    assert calls == ["read"]
    assert json.loads(first.body) == json.loads(second.body) == {"id": 7, "call": 1}
    assert header(second, "content-type") == "application/json"
    assert header(first, "age") == ""
    assert header(second, "age") == "20"
    assert header(first, "cache-status") == "flask-mesh; fwd=uri-miss; stored"
    assert header(second, "cache-status") == "flask-mesh; hit; ttl=39"
    clock.now += 40
    assert json.loads((await ask("/things/7")).body)["call"] == 2
    assert json.loads((await ask("/things/8")).body)["id"] == 8


async def test_a_plain_view_may_wait_as_well_and_its_headers_are_kept(ask: Ask) -> None:
    first, second = await ask("/things/plain/7"), await ask("/things/plain/7")
    assert (first.status, first.body) == (200, second.body)
    assert calls == ["plain"]
    assert header(second, "x-thing") == "yes"


async def test_a_broken_request_is_refused_before_the_cache(ask: Ask) -> None:
    assert (await ask("/things/seven")).status == 404
    assert calls == []


async def test_many_who_ask_at_once_are_answered_by_one_run(ask: Ask) -> None:
    behaviour["gate"] = gate = asyncio.Event()
    tasks = [asyncio.create_task(ask("/things/free")) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*tasks)
    assert {answer.body for answer in answers} == {b"call 1"}


async def test_a_client_that_leaves_does_not_take_the_others_along(ask: Ask) -> None:
    behaviour["gate"] = gate = asyncio.Event()
    tasks = [asyncio.create_task(ask("/things/free")) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    gate.set()
    assert {answer.body for answer in await asyncio.gather(*tasks[1:])} == {b"call 1"}


async def test_a_strong_etag_of_the_body_makes_a_304(ask: Ask) -> None:
    first = await ask("/things/7")
    etag = header(first, "etag")
    assert etag.startswith('"')
    for sent in (etag, f'"x", {etag}', "*", f"W/{etag}"):
        again = await ask("/things/7", If_None_Match=sent)
        assert (again.status, again.body) == (304, b"")
        assert header(again, "etag") == etag
        assert header(again, "cache-control")
        assert header(again, "content-type") == ""
    assert (await ask("/things/7", If_None_Match='"other"')).status == 200
    fresh = await ask("/things/8", If_None_Match="*")
    assert (fresh.status, calls) == (304, ["read", "read"])


async def test_a_head_request_is_answered_from_what_a_get_has_left(ask: Ask) -> None:
    assert (await ask("/things/free", "HEAD")).status == 200
    await ask("/things/free")
    head = await ask("/things/free", "HEAD")
    assert (head.status, head.body, header(head, "content-length")) == (200, b"", "6")
    assert header(head, "cache-status").startswith("flask-mesh; hit")
    assert len(calls) == 2


async def test_other_methods_are_never_cached_and_may_invalidate(ask: Ask) -> None:
    assert (
        json.loads((await ask("/things/total")).body) == json.loads((await ask("/things/total")).body) == {"total": 2}
    )
    assert calls == ["total"]
    await ask("/things/7")
    assert [(await ask("/things/total", "POST")).body for _ in range(2)] == [b"call 3", b"call 4"]
    assert json.loads((await ask("/things/total")).body) == {"total": 6}
    assert json.loads((await ask("/things/7")).body)["call"] == 6


async def test_the_query_makes_another_answer(ask: Ask) -> None:
    bodies = [(await ask(path)).body for path in ("/things/free?a=1", "/things/free?a=2", "/things/free?a=1")]
    assert bodies == [b"call 1", b"call 2", b"call 1"]


async def test_how_long_clients_may_keep_it(ask: Ask) -> None:
    assert header(await ask("/things/free"), "cache-control") == "max-age=60"
    assert header(await ask("/things/free"), "cache-control") == "max-age=60"
    # No invalidation reaches a client: it has to ask.
    assert header(await ask("/things/7"), "cache-control") == "no-cache"
    assert header(await ask("/things/public"), "cache-control") == "public, max-age=5"
    assert header(await ask("/things/own"), "cache-control") == "private, max-age=60"
    # What the view says itself stays.
    assert header(await ask("/things/mine"), "cache-control") == "private, max-age=30"


async def test_answers_differ_by_the_headers_that_are_named(ask: Ask) -> None:
    bodies = [(await ask("/things/varied", Accept_Language=language)).body for language in ("de", "en", "de")]
    assert bodies == [b"call 1", b"call 2", b"call 1"]
    assert header(await ask("/things/varied", Accept_Language="de", Cookie="x=1"), "vary") == "Accept-Language"
    assert len(calls) == 2


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param({"headers": {"Vary": "*"}}, id="Vary: *"),
        pytest.param({"headers": {"Vary": "Accept"}}, id="Vary on what is not named"),
        pytest.param({"headers": {"Set_Cookie": "a=1"}}, id="a cookie"),
        pytest.param({"headers": {"Cache_Control": "no-store"}}, id="no-store"),
        pytest.param({"headers": {"Cache_Control": "private"}}, id="private"),
        pytest.param({"headers": {"Cache_Control": "no-cache"}}, id="no-cache"),
        pytest.param({"headers": {"Cache_Control": "max-age=0"}}, id="max-age=0"),
        pytest.param({"status": 201}, id="201"),
        pytest.param({"status": 404}, id="404"),
        pytest.param({"status": 302}, id="302"),
        pytest.param({"status": 500}, id="500"),
        pytest.param({"streamed": True}, id="streamed"),
        pytest.param({"session": True}, id="the session was touched"),
        pytest.param({"abort": 410}, id="an HTTP exception"),
        pytest.param({"error": Conflict("no")}, id="an error of ours"),
        pytest.param({"error": Unavailable("no")}, id="a failure"),
    ],
)
async def test_what_is_not_to_be_kept_is_made_anew_for_each_who_asks(ask: Ask, shown: dict[str, Any]) -> None:
    behaviour.update(shown)
    answers = [await ask("/things/free") for _ in range(2)]
    behaviour["gate"] = gate = asyncio.Event()
    together = [asyncio.create_task(ask("/things/free")) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    gate.set()
    answers += await asyncio.gather(*together)
    assert len(calls) >= 3
    assert len({answer.status for answer in answers}) == 1
    assert not any(header(answer, "age") for answer in answers)
    if "session" in shown or "Set_Cookie" in shown.get("headers", {}):
        assert len(calls) == 5  # nobody gets what was made for another
        assert len({answer.body for answer in answers}) == 5


async def test_a_view_may_shorten_its_life(ask: Ask) -> None:
    behaviour["headers"] = {"Cache_Control": "s-maxage=7, max-age=3"}
    await ask("/things/free")
    again = await ask("/things/free")
    assert header(again, "cache-status") == "flask-mesh; hit; ttl=7"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"Cache_Control": "no-store"}, id="no-store"),
        pytest.param({"Range": "bytes=0-1"}, id="a range"),
        pytest.param({"Authorization": "Bearer a"}, id="Authorization"),
    ],
)
async def test_a_request_that_is_not_to_be_answered_from_a_cache_is_not_nor_fills_it(
    ask: Ask, sent: dict[str, str]
) -> None:
    assert (await ask("/things/free", **sent)).body == b"call 1"
    assert (await ask("/things/free")).body == b"call 2"
    assert (await ask("/things/free", **sent)).body == b"call 3"
    assert (await ask("/things/free")).body == b"call 2"


async def test_users_are_told_apart_where_the_view_says_so(ask: Ask) -> None:
    first = [(await ask("/things/mine", Authorization=f"Bearer {user}")).body for user in "aba"]
    assert first == [b"call 1", b"call 2", b"call 1"]
    assert (await ask("/things/mine")).body == b"call 3"
    assert header(await ask("/things/mine", Authorization="Bearer a"), "vary") == "Authorization"
    own = [(await ask("/things/own", X_User=user, Authorization="Bearer x")).body for user in "aba"]
    assert own == [b"call 4", b"call 5", b"call 4"]


async def test_what_is_public_is_for_everybody(ask: Ask) -> None:
    assert (await ask("/things/public", Authorization="Bearer a")).body == b"call 1"
    assert (await ask("/things/public", Authorization="Bearer b")).body == b"call 1"
    # The view may say so in its answer; then a request with Authorization gets it, and does not fill it.
    behaviour["headers"] = {"Cache_Control": "public, max-age=60"}
    assert (await ask("/things/free", Authorization="Bearer a")).body == b"call 2"
    assert (await ask("/things/free")).body == b"call 3"
    assert (await ask("/things/free", Authorization="Bearer a")).body == b"call 3"


async def test_the_last_answer_stands_in_while_the_view_fails(ask: Ask, local: Cache, clock: Clock) -> None:
    first = await ask("/things/short")
    clock.now += 15
    for failure in ({"error": Unavailable("away")}, {"error": ZeroDivisionError()}, {"status": 503}):
        behaviour.clear()
        behaviour.update(failure)
        stale = await ask("/things/short")
        assert (stale.status, stale.body) == (200, first.body)
        assert header(stale, "cache-status") == "flask-mesh; hit; ttl=-5"
        assert (header(stale, "age"), header(stale, "cache-control")) == ("15", "max-age=10")
    behaviour.clear()
    behaviour["error"] = Conflict("no")
    assert (await ask("/things/short")).status == 409
    outcomes = local.describe()["outcomes"]["view things.short"]
    assert outcomes["stale"] == 3


async def test_hooks_run_for_every_request_and_a_session_that_a_hook_used_is_no_business_of_the_cache(
    app: ServiceApp, ask: Ask
) -> None:
    hooks: list[str] = []

    @app.before_request
    def before() -> None:
        hooks.append("before")
        g.user = "someone"
        if behaviour.get("hook uses session"):
            session.get("user")

    @app.after_request
    def after(response: Response) -> Response:
        response.headers["X-Hook"] = g.user
        return response

    for _ in range(2):
        assert header(await ask("/things/free"), "x-hook") == "someone"
    assert (len(hooks), len(calls)) == (2, 1)
    behaviour["hook uses session"] = True
    assert (await ask("/things/free")).body == b"call 2"


async def test_a_decorated_view_stays_documented(app: ServiceApp) -> None:
    operation = app.api_doc["paths"]["/things/{thing_id}"]["get"]
    assert operation["summary"] == "Read."
    assert operation["parameters"][0]["schema"]["type"] == "integer"
    assert isinstance(app, Flask)


async def test_a_kept_answer_is_gone_when_its_tag_is_invalidated(ask: Ask, local: Cache) -> None:
    await ask("/things/7")
    await local.invalidate("thing:8")
    await ask("/things/7")
    assert len(calls) == 1
    await local.invalidate("thing:7")
    assert json.loads((await ask("/things/7")).body)["call"] == 2
