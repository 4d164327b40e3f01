"""Idempotency-Key, through the bridge and on real databases: what is repeated has its effect once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Response, abort, request
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel
from sqlalchemy import func, select, update

from app import settings
from app.auth import public, requires
from app.context import Context, activate
from app.data import Database, idempotency, tables
from app.errors import Conflict, Misconfigured, TooManyRequests, Unavailable
from app.service import Service
from app.web import API, current_key, demand, idempotent
from app.web.factory import ServiceApp, create_app
from app.web.views.current import EXTENSION
from app.web.views.idempotency import MAX_BODY_BYTES
from tests.data.databases import SETTINGS, database, database_url
from tests.tokens import TestIssuer, bearer, guard
from tests.web.harness import Exchange, chunk

__all__ = ["database", "database_url"]

Ask = Callable[..., Coroutine[Any, Any, Exchange]]
Outcome = Callable[[], Any]

METADATA = tables.metadata()
TABLE = idempotency.table(METADATA, "things")
ANY_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

effects: list[str | None] = []
# How the view ends, if not well; and what it waits for.
behaviour: dict[str, Any] = {}


class ThingIn(BaseModel):
    name: str


class ThingPath(BaseModel):
    thing_id: int


class ThingOut(BaseModel):
    number: int


api = public(API("things", __name__, prefix="/things"))


@api.post("", responses={201: ThingOut})
@idempotent
async def create(body: ThingIn) -> Any:
    """Create."""
    effects.append(current_key())
    if (gate := behaviour.get("gate")) is not None:
        await gate.wait()
    if (outcome := behaviour.get("outcome")) is not None:
        outcome()
    headers = {"Location": f"/things/{len(effects)}", "ETag": '"1"', "X-Other": "of this one answer"}
    return ThingOut(number=len(effects)), 201, headers


@api.post("/plain", responses={200: ThingOut})
@idempotent
def plain() -> dict[str, int]:
    """In a plain view."""
    effects.append(current_key())
    return {"number": len(effects)}


@api.post("/<int:thing_id>/stop", responses={204: None})
@idempotent
async def stop(path: ThingPath) -> tuple[str, int]:
    """Without an answer."""
    effects.append(current_key())
    return "", 204


@api.post("/large")
@idempotent
async def large() -> Any:
    """More than is kept: at once, or piece by piece."""
    effects.append(current_key())
    size = MAX_BODY_BYTES + (1 if "more" in request.args else 0)
    body = b"x" * size
    return Response(iter([body])) if "streamed" in request.args else body


@api.post("/form")
@idempotent
async def form() -> Any:
    """Of a form."""
    effects.append(current_key())
    return request.form["name"]


@api.post("/guarded")
@(requires("things:write"))
@idempotent
async def guarded() -> dict[str, int]:
    """For some."""
    effects.append(current_key())
    return {"number": len(effects)}


@api.post("/demanding")
@idempotent
async def demanding() -> dict[str, int]:
    """For some, as only the view knows."""
    demand(requires("things:write"))
    return {"number": len(effects)}


@pytest.fixture
async def app(database: Database, issuer: TestIssuer) -> ServiceApp:
    effects.clear()
    behaviour.clear()
    async with database.session() as session:
        await (await session.connection()).run_sync(METADATA.create_all)
    service = Service("things", blueprints=(api,), models=METADATA, migrations=Path(__file__).parent)
    config = settings.load()
    made = create_app(service, config)
    observer = SimpleNamespace(decision=lambda _: None)
    made.extensions[EXTENSION] = SimpleNamespace(
        settings=config, service=service, database=database, auth=guard(issuer), observer=observer
    )
    return made


@pytest.fixture
def ask(app: ServiceApp) -> Ask:
    async def ask(
        path: str = "/things",
        key: str | None = "k",
        *,
        body: bytes = b'{"name": "x"}',
        token: str | None = None,
        **more: str,
    ) -> Exchange:
        raw, _, query = path.partition("?")
        given = {"content_type": "application/json", **more} | ({} if token is None else bearer(token))
        headers = [(name.lower().replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()]
        headers += [(b"host", b"x"), (b"content-length", str(len(body)).encode())]
        if key is not None:
            headers.append((b"idempotency-key", key.encode("latin-1")))
        scope = {"method": "POST", "path": raw, "raw_path": raw.encode(), "query_string": query.encode()}
        return await Exchange(chunk(body, more=False), headers=headers, **scope).run(app.asgi_app)

    return ask


def header(answer: Exchange, name: str) -> str | None:
    return next((value.decode() for key, value in answer.headers if key == name.encode()), None)


def code(answer: Exchange) -> tuple[int, str]:
    document = json.loads(answer.body)
    assert header(answer, "content-type") == "application/problem+json"
    return answer.status, document["code"]


async def rows(database: Database) -> int:
    async with database.reading() as session:
        return int((await session.execute(select(func.count()).select_from(TABLE))).scalar_one())


async def lapse(database: Database) -> None:
    """Let every lease run out, as if the process that had it were gone."""
    async with database.session() as session:
        await session.execute(update(TABLE).values(leased_until=datetime.now(UTC)))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def same(first: Exchange, again: Exchange) -> bool:
    return (first.status, first.body) == (again.status, again.body)


async def test_of_twenty_equal_requests_at_once_one_has_an_effect(ask: Ask) -> None:
    answers = await asyncio.gather(*(ask() for _ in range(20)))
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {201, 409}
    assert len({answer.body for answer in answers if answer.status == 201}) == 1
    assert {code(answer) for answer in answers if answer.status == 409} <= {(409, "request_in_flight")}
    assert {header(answer, "retry-after") for answer in answers if answer.status == 409} <= {"1"}
    assert len(effects) == 1
    again = await ask()
    assert (again.status, header(again, "idempotency-replayed")) == (201, "true")


@ANY_DATABASE
async def test_a_request_that_comes_again_is_answered_as_before(ask: Ask) -> None:
    first, again = await ask(), await ask()
    assert same(first, again)
    assert (first.status, len(effects)) == (201, 1)
    for name in ("location", "etag", "content-type", "content-length"):
        assert header(first, name) == header(again, name) is not None, name
    assert (header(again, "x-other"), header(first, "idempotency-replayed")) == (None, None)
    assert header(again, "idempotency-replayed") == "true"


@ANY_DATABASE
async def test_views_of_every_kind_are_answered_as_before(ask: Ask) -> None:
    for path in ("/things/plain", "/things/7/stop", "/things/large"):
        effects.clear()
        first, again = await ask(path), await ask(path)
        assert same(first, again), path
        assert (len(effects), header(again, "idempotency-replayed")) == (1, "true"), path


@ANY_DATABASE
async def test_without_a_key_nothing_is_looked_at(ask: Ask, app: ServiceApp, database: Database) -> None:
    before = dict(app.extensions)
    answers = [await ask(key=None) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert effects == [None, None]
    assert (await rows(database), dict(app.extensions)) == (0, before)


@ANY_DATABASE
@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä", "a\x7f", "a\tb"])
async def test_a_key_that_is_none_is_refused(ask: Ask, key: str) -> None:
    assert code(await ask(key=key)) == (400, "bad_request")
    assert effects == []


@ANY_DATABASE
@pytest.mark.parametrize("key", ["!", "~" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a,b", "{'\\"])
async def test_any_visible_characters_are_a_key(ask: Ask, key: str) -> None:
    assert [(await ask(key=key)).status for _ in range(2)] == [201, 201]
    assert len(effects) == 1


@ANY_DATABASE
async def test_a_key_that_comes_with_another_request_is_refused(ask: Ask) -> None:
    await ask()
    assert code(await ask(body=b'{"name": "y"}')) == (422, "idempotency_key_reused")
    assert code(await ask("/things?dry=1")) == (422, "idempotency_key_reused")
    await ask("/things/7/stop", "s")
    assert code(await ask("/things/8/stop", "s")) == (422, "idempotency_key_reused")
    assert len(effects) == 2


@ANY_DATABASE
async def test_the_fields_of_a_form_are_a_part_of_the_request(ask: Ask) -> None:
    kind = {"content_type": "application/x-www-form-urlencoded"}
    assert (await ask("/things/form", body=b"name=x", **kind)).body == b"x"
    assert (await ask("/things/form", body=b"name=x", **kind)).body == b"x"
    assert code(await ask("/things/form", body=b"name=y", **kind)) == (422, "idempotency_key_reused")
    assert len(effects) == 1


@ANY_DATABASE
async def test_callers_and_routes_do_not_share_keys(ask: Ask, issuer: TestIssuer) -> None:
    tokens = [None, issuer.user(7), issuer.user(8), issuer.user(7, client_id="other-web"), issuer.client("7")]
    for token in tokens:
        for path in ("/things", "/things/plain"):
            assert (await ask(path, token=token)).status in (200, 201)
    assert len(effects) == len(set(effects)) == 10
    assert all(key is not None and len(key) == 64 for key in effects)
    # Another token of the same caller is no other caller.
    assert header(await ask(token=issuer.user(7)), "idempotency-replayed") == "true"


@ANY_DATABASE
async def test_whoever_may_not_is_refused_before_anything_is_looked_up(
    ask: Ask, issuer: TestIssuer, database: Database
) -> None:
    assert code(await ask("/things/guarded")) == (401, "unauthorized")
    assert code(await ask("/things/guarded", token=issuer.user(7, "openid"))) == (403, "forbidden")
    assert await rows(database) == 0
    assert (await ask("/things/guarded", token=issuer.user(7, "things:write"))).status == 200


@ANY_DATABASE
async def test_what_is_no_request_at_all_leaves_the_key_free(ask: Ask) -> None:
    assert code(await ask(body=b"{")) == (400, "malformed_json")
    assert (await ask()).status == 201


def refuse() -> None:
    raise Conflict("There is one", extensions={"skus": ["x"]})


def gone() -> None:
    abort(410)


@ANY_DATABASE
@pytest.mark.parametrize("outcome", [refuse, gone])
async def test_an_answer_that_says_no_is_kept(ask: Ask, outcome: Outcome) -> None:
    behaviour["outcome"] = outcome
    first = await ask()
    behaviour.clear()
    again = await ask()
    assert same(first, again)
    assert code(again)[0] in (409, 410)
    assert len(effects) == 1


@ANY_DATABASE
async def test_an_answer_that_asks_for_a_token_asks_again(ask: Ask) -> None:
    first, again = await ask("/things/demanding"), await ask("/things/demanding")
    assert code(first) == code(again) == (401, "unauthorized")
    assert header(first, "www-authenticate") == header(again, "www-authenticate") is not None


def away() -> None:
    raise Unavailable("inventory is away", retry_after=1.0)


def limited() -> None:
    raise TooManyRequests("slow down", retry_after=1.0)


def bug() -> None:
    raise ZeroDivisionError


def abort_503() -> None:
    abort(503)


def answer_502() -> None:
    abort(Response("bad", 502))


@ANY_DATABASE
@pytest.mark.parametrize("outcome", [away, limited, bug, abort_503, answer_502])
async def test_what_trying_again_may_mend_is_not_kept(ask: Ask, database: Database, outcome: Outcome) -> None:
    behaviour["outcome"] = outcome
    first = await ask()
    assert first.status in (429, 500, 502, 503)
    assert await rows(database) == 0
    behaviour.clear()
    assert (await ask()).status == 201
    assert len(effects) == 2
    assert effects[0] == effects[1] is not None


async def test_a_request_whose_process_died_is_dealt_with_again_under_the_same_name(
    ask: Ask, database: Database
) -> None:
    behaviour["gate"] = gate = asyncio.Event()
    late = asyncio.create_task(ask())
    await until(lambda: effects)
    assert code(await ask()) == (409, "request_in_flight")
    await lapse(database)
    behaviour.clear()
    newer = await ask()
    # It was not dead after all: what it says goes to whoever asked it, and to nobody else.
    gate.set()
    assert (await late).status == 201
    assert (await ask()).body == newer.body == b'{"number":2}'
    assert len(effects) == 2
    assert effects[0] == effects[1] is not None


@ANY_DATABASE
async def test_a_request_that_nobody_waits_for_any_longer_can_be_made_again(ask: Ask, database: Database) -> None:
    behaviour["gate"] = asyncio.Event()
    left = asyncio.create_task(ask())
    await until(lambda: effects)
    left.cancel()
    await asyncio.wait({left})
    assert await rows(database) == 0
    behaviour.clear()
    assert (await ask()).status == 201


@ANY_DATABASE
async def test_the_lease_is_as_long_as_the_request_may_take(ask: Ask, app: ServiceApp, database: Database) -> None:
    behaviour["gate"] = gate = asyncio.Event()
    waiting = []
    for key, seconds in {"short": 2.0, "long": 10_000.0}.items():
        loop = asyncio.get_running_loop()
        with activate(Context(key, deadline=loop.time() + seconds)):
            waiting.append(asyncio.create_task(ask(key=key)))
        await until(lambda: len(effects) == len(waiting))
    async with database.reading() as session:
        query = select(TABLE.c.leased_until, TABLE.c.expires_at).order_by(TABLE.c.leased_until)
        leases = [until - (end - timedelta(hours=24)) for until, end in await session.execute(query)]
    longest = settings.load().request_timeout_seconds
    assert timedelta(seconds=5) < leases[0] <= timedelta(seconds=7)
    assert leases[1] == timedelta(seconds=longest + 5)
    gate.set()
    await asyncio.gather(*waiting)


@ANY_DATABASE
@pytest.mark.parametrize("query", ["more", "streamed"])
async def test_a_reply_that_is_too_large_to_be_kept_says_so_and_is_not_made_again(ask: Ask, query: str) -> None:
    first = await ask(f"/things/large?{query}=1")
    assert (first.status, len(first.body)) == (200, MAX_BODY_BYTES + (query == "more"))
    assert code(await ask(f"/things/large?{query}=1")) == (409, "reply_not_kept")
    assert len(effects) == 1


@ANY_DATABASE
@pytest.mark.parametrize(("outcome", "status"), [(None, 201), (away, 503)])
async def test_an_answer_goes_out_even_if_it_cannot_be_written_down(
    ask: Ask, app: ServiceApp, database: Database, database_url: str, outcome: Outcome | None, status: int
) -> None:
    impatient = Database(database_url, SETTINGS.model_copy(update={"statement_timeout_seconds": 0.1}))
    app.extensions[EXTENSION].database = impatient
    behaviour.update(gate=asyncio.Event(), outcome=outcome)
    waiting = asyncio.create_task(ask())
    await until(lambda: effects)
    async with database.session() as session:
        await session.execute(update(TABLE).values(status=None))
        behaviour["gate"].set()
        assert (await waiting).status == status
    # Nobody knows how it ended, until the lease has run out.
    assert code(await ask()) == (409, "request_in_flight")
    await lapse(database)
    behaviour.clear()
    assert (await ask()).status == 201
    await impatient.close()


def test_a_service_without_the_table_does_not_start() -> None:
    empty = tables.metadata()
    for models in (None, empty):
        with pytest.raises(Misconfigured, match=r"things\.create"):
            create_app(
                Service("things", blueprints=(api,), models=models, migrations=Path(__file__).parent), settings.load()
            )


@ANY_DATABASE
async def test_a_request_has_one_name_and_another_one_has_another(ask: Ask, database: Database) -> None:
    await ask()
    for body in (b'{"name": "x"}', b'{"name": "another"}'):
        # As if a day were over.
        async with database.session() as session:
            await session.execute(update(TABLE).values(expires_at=datetime.now(UTC)))
        await ask(body=body)
    first, again, other = effects
    assert first == again != other
    assert {len(name or "") for name in effects} == {64}


async def test_outside_of_such_a_request_there_is_no_key() -> None:
    assert current_key() is None


@ANY_DATABASE
async def test_the_document_tells_of_the_header(app: ServiceApp) -> None:
    OpenAPIV31SpecValidator(app.api_doc).validate()
    for path, status in {"/things": "201", "/things/plain": "200"}.items():
        operation = app.api_doc["paths"][path]["post"]
        assert [p["name"] for p in operation["parameters"] if p["in"] == "header"] == ["Idempotency-Key"]
        assert "Idempotency-Replayed" in operation["responses"][status]["headers"]
        assert "409" in operation["responses"]
