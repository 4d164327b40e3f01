"""Versions as conditions, through the bridge: ETag, If-None-Match, If-Match (RFC 9110, 13)."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from app import settings
from app.auth import public
from app.data import versions
from app.data.fields import MAX_ID
from app.errors import BadInput
from app.service import Service
from app.web import API, expected, tagged, versioned
from app.web.factory import ServiceApp, create_app
from tests.web.harness import Exchange

Ask = Callable[..., Coroutine[Any, Any, Exchange]]

VERSION = 3
seen: list[versions.Expected] = []


class ThingPath(BaseModel):
    thing_id: int


class ThingOut(BaseModel):
    id: int


Shown = tuple[ThingOut, int, dict[str, str]]
api = public(API("things", __name__, prefix="/things"))


@api.get("/<int:thing_id>", responses={200: ThingOut})
@versioned
async def read(path: ThingPath) -> Shown:
    """Read."""
    return tagged(ThingOut(id=path.thing_id), VERSION, headers={"Vary": "Authorization"})


@api.get("/<int:thing_id>/profile", responses={200: ThingOut})
@versioned
def profile(path: ThingPath) -> Shown:
    """A part of it, in a plain view."""
    return tagged(ThingOut(id=path.thing_id), VERSION, variant="profile")


@api.get("/<int:thing_id>/gone")
@versioned
async def gone(path: ThingPath) -> Any:
    """An error has no version."""
    return "gone", 410, {"ETag": '"3"'}


@api.put("/<int:thing_id>", responses={200: ThingOut})
@versioned
async def change(path: ThingPath) -> Shown:
    """Change."""
    seen.append(expected())
    versions.check(VERSION, expected())
    return tagged(ThingOut(id=path.thing_id), VERSION + 1)


@api.post("", responses={201: ThingOut})
@versioned
async def create() -> Shown:
    """Create."""
    return tagged(ThingOut(id=1), 1, status=201)


@pytest.fixture
def app() -> ServiceApp:
    seen.clear()
    return create_app(Service("things", blueprints=(api,)), settings.load())


@pytest.fixture
def ask(app: ServiceApp) -> Ask:
    async def ask(path: str, method: str = "GET", **headers: str) -> Exchange:
        sent = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"method": method, "path": path, "raw_path": path.encode()}
        return await Exchange(headers=[(b"host", b"x"), *sent], **scope).run(app.asgi_app)

    return ask


def header(exchange: Exchange, name: str) -> list[str]:
    return [value.decode() for key, value in exchange.headers if key == name.encode()]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("known", ['"3"', 'W/"3"', '"1", "3"', "*"])
async def test_what_is_known_already_is_not_sent_again(ask: Ask, method: str, known: str) -> None:
    answer = await ask("/things/7", method, if_none_match=known)
    assert (answer.status, answer.body) == (304, b"")
    assert (header(answer, "etag"), header(answer, "vary")) == (['"3"'], ["Authorization"])
    assert header(answer, "content-type") == []


@pytest.mark.parametrize("known", ['"2"', '"3-profile"', '"33"', "3", "nonsense", ""])
async def test_what_has_changed_is_sent(ask: Ask, known: str) -> None:
    answer = await ask("/things/7", if_none_match=known)
    # Without quotes it is no tag, and some say it all the same.
    assert answer.status == (304 if known == "3" else 200)
    assert header(answer, "etag") == ['"3"']
    assert header(answer, "date") == []


async def test_each_way_to_show_a_thing_has_tags_of_its_own(ask: Ask) -> None:
    assert header(await ask("/things/7/profile"), "etag") == ['"3-profile"']
    assert (await ask("/things/7/profile", if_none_match='"3-profile"')).status == 304
    assert (await ask("/things/7/profile", if_none_match='"3"')).status == 200


async def test_an_error_is_never_not_modified(ask: Ask) -> None:
    assert (await ask("/things/7/gone", if_none_match='"3"')).status == 410


@pytest.mark.parametrize("condition", ['"3"', "*", ' "1" , "3"', '"3",', ',"\xff", "3"', '"a,b", "3"', 'W/"2", "3"'])
async def test_a_change_that_is_meant_for_this_version_is_made(ask: Ask, condition: str) -> None:
    for path, method in (("/things/7", "PUT"), ("/things/7", "GET")):
        answer = await ask(path, method, if_match=condition)
        assert answer.status == 200, condition
    assert seen == [None] if condition == "*" else 3 in (seen[0] or ())


@pytest.mark.parametrize(
    "condition", ['"2"', 'W/"3"', '"3-profile"', '"2", "4"', '"*"', '"03"', '"+3"', '""', f'"{2**63}"', f'"{"9" * 99}"']
)
async def test_a_change_that_is_meant_for_another_version_is_not(ask: Ask, condition: str) -> None:
    for method in ("PUT", "GET"):
        answer = await ask("/things/7", method, if_match=condition)
        assert (answer.status, json.loads(answer.body)["code"]) == (412, "precondition_failed"), method


@pytest.mark.parametrize(
    "condition", ["3", "", '"3', '"3" "4"', '"3";', 'w/"3"', "'3'", '*, "3"', '"3", *', '" 3"', "," * 9_000]
)
async def test_a_malformed_condition_is_the_client_s_fault(ask: Ask, condition: str) -> None:
    for method in ("PUT", "GET"):
        answer = await ask("/things/7", method, if_match=condition)
        assert (answer.status, json.loads(answer.body)["code"]) == (400, "bad_request"), method


async def test_without_a_condition_nothing_is_expected(ask: Ask) -> None:
    assert header(await ask("/things/7", "PUT"), "etag") == ['"4"']
    assert seen == [None]
    assert header(await ask("/things", "POST"), "etag") == ['"1"']


PLAIN = Flask(__name__)
OPAQUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'), max_size=9).filter(
    lambda tag: not any("\x7f" <= letter <= "\x9f" for letter in tag)
)


@given(st.lists(st.tuples(st.booleans(), st.one_of(OPAQUE, st.integers(0, 2 * MAX_ID).map(str))), min_size=1))
def test_a_list_of_tags_names_the_versions_in_it(tags: list[tuple[bool, str]]) -> None:
    value = " , ".join(f'{"W/" if weak else ""}"{tag}"' for weak, tag in tags)
    with PLAIN.request_context(EnvironBuilder(headers=Headers({"If-Match": value})).get_environ()):
        ours = [tag for weak, tag in tags if not weak and tag.isascii() and tag.isdigit() and str(int(tag)) == tag]
        assert expected() == frozenset(int(tag) for tag in ours if 0 < int(tag) <= MAX_ID)


@given(st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0"), max_size=30))
def test_whatever_is_sent_as_a_condition_is_read_or_refused(value: str) -> None:
    environ = {**EnvironBuilder().get_environ(), "HTTP_IF_MATCH": value}
    with PLAIN.request_context(environ), suppress(BadInput):
        assert expected() is None or value.count('"') % 2 == 0


async def test_the_document_tells_of_conditions(app: ServiceApp, ask: Ask) -> None:
    document = json.loads((await ask("/openapi.json")).body)
    OpenAPIV31SpecValidator(document).validate()
    reading, changing = (document["paths"]["/things/{thing_id}"][method] for method in ("get", "put"))
    assert [p["name"] for p in reading["parameters"] if p["in"] == "header"] == ["If-None-Match"]
    assert [p["name"] for p in changing["parameters"] if p["in"] == "header"] == ["If-Match"]
    assert "content" not in reading["responses"]["304"]
    assert "application/problem+json" in changing["responses"]["412"]["content"]
    for operation in (reading, changing):
        assert "ETag" in operation["responses"]["200"]["headers"]
    creating = document["paths"]["/things"]["post"]
    assert "ETag" in creating["responses"]["201"]["headers"]
    assert "parameters" not in creating
