"""What every service's application does: documents, errors, bad input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import abort, redirect
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, ConfigDict, Field

from app import settings
from app.auth import public
from app.errors import Unavailable
from app.service import Service
from app.web import API
from app.web.factory import ServiceApp, create_app
from tests.web.harness import Exchange, chunk


class ThingPath(BaseModel):
    thing_id: int = Field(ge=1, le=2**63 - 1)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    quantity: int = Field(ge=1)


class ThingIn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(min_length=1, max_length=10)
    parts: list[Part] = Field(default=[], max_length=3)


class ThingOut(BaseModel):
    id: int
    name: str


class Search(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=20, ge=1, le=100)


api = public(API("things", __name__, prefix="/things"))


@api.get("", responses={200: ThingOut})
async def search(query: Search) -> Any:
    """Search."""
    return {"limit": query.limit}


@api.post("", responses={201: ThingOut})
async def create(body: ThingIn) -> Any:
    """Create."""
    return ThingOut(id=1, name=body.name), 201, {"Location": "/things/1"}


@api.get("/<int:thing_id>", responses={200: ThingOut})
def read(path: ThingPath) -> ThingOut:
    """Read, in a plain view."""
    return ThingOut(id=path.thing_id, name="x")


@api.delete("/<int:thing_id>", responses={204: None})
async def remove(path: ThingPath) -> Any:
    """Remove."""
    return "", 204


@api.get("/away")
async def away() -> Any:
    raise Unavailable("The shop is closed", retry_after=1.2)


@api.get("/bug")
async def bug() -> Any:
    raise ZeroDivisionError("postgresql://user:secret@host/db")


@api.get("/gone")
async def gone() -> Any:
    abort(410)


@api.get("/elsewhere")
async def elsewhere() -> Any:
    return redirect("/things")


@pytest.fixture
def app() -> ServiceApp:
    return create_app(Service("things", blueprints=(api,), description="Things."), settings.load(max_body_bytes=1000))


async def ask(
    app: ServiceApp, method: str, path: str, body: bytes = b"", kind: bytes = b"application/json"
) -> Exchange:
    raw, _, query = path.partition("?")
    headers = [(b"host", b"x"), (b"content-type", kind), (b"content-length", str(len(body)).encode())]
    scope = {"method": method, "path": raw, "raw_path": raw.encode(), "query_string": query.encode()}
    return await Exchange(chunk(body, more=False), headers=headers, **scope).run(app.asgi_app)


def problem(answer: Exchange) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.body)
    assert (b"content-type", b"application/problem+json") in answer.headers, answer.headers
    assert set(document) >= {"type", "title", "status", "detail", "instance", "code", "request_id"}
    assert document["status"] == answer.status
    return document


async def test_views_return_models_tuples_and_nothing(app: ServiceApp) -> None:
    read = await ask(app, "GET", "/things/5")
    assert (read.status, json.loads(read.body)) == (200, {"id": 5, "name": "x"})
    made = await ask(app, "POST", "/things", b'{"name": "chair"}')
    assert (made.status, dict(made.headers)[b"location"]) == (201, b"/things/1")
    removed = await ask(app, "DELETE", "/things/5")
    assert (removed.status, removed.body) == (204, b"")
    assert (await ask(app, "GET", "/things/elsewhere")).status == 302


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        pytest.param("POST", "/things", b'{"name": ', 400, "malformed_json", id="malformed JSON"),
        pytest.param("POST", "/things", b"\xff\xfe", 400, "malformed_json", id="not even text"),
        pytest.param("POST", "/things", b"", 400, "malformed_json", id="no body"),
        pytest.param("POST", "/things", b"NaN", 400, "malformed_json", id="not JSON's number"),
        pytest.param("POST", "/things", b"[" * 900, 400, "malformed_json", id="a tower of brackets"),
        pytest.param("POST", "/things", b"[]", 422, "invalid_input", id="a list for an object"),
        pytest.param("POST", "/things", b'{"name": 7}', 422, "invalid_input", id="wrong type"),
        pytest.param("POST", "/things", b'{"name": "x", "nmae": 1}', 422, "invalid_input", id="unknown field"),
        pytest.param("POST", "/things", b"{" + b" " * 2000 + b"}", 413, "body_too_large", id="oversized"),
        pytest.param("GET", "/things?limit=0", b"", 422, "invalid_input", id="out of range"),
        pytest.param("GET", "/things?lmit=5", b"", 422, "invalid_input", id="unknown parameter"),
        pytest.param("GET", "/things/-1", b"", 404, "not_found", id="negative id"),
        pytest.param("GET", "/things/0", b"", 422, "invalid_input", id="zero id"),
        pytest.param("GET", f"/things/{2**63}", b"", 422, "invalid_input", id="id beyond 64 bits"),
        pytest.param("GET", f"/things/{'9' * 5000}", b"", 404, "not_found", id="id beyond int()"),
        pytest.param("DELETE", f"/things/{2**64}", b"", 404, "not_found", id="id of 20 digits, whatever the method"),
        pytest.param("GET", "/things/%00", b"", 404, "not_found", id="NUL in the path"),
        pytest.param("GET", "/nowhere", b"", 404, "not_found", id="unknown path"),
        pytest.param("PUT", "/things", b"", 405, "method_not_allowed", id="wrong method"),
        pytest.param("GET", "/things/gone", b"", 410, "gone", id="abort"),
        pytest.param("GET", "/things/bug", b"", 500, "internal_error", id="our own fault"),
    ],
)
async def test_everything_that_goes_wrong_is_a_problem_document(
    app: ServiceApp, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    answer = await ask(app, method, path, body)
    assert (answer.status, problem(answer)["code"]) == (status, code)
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


async def test_a_field_is_named_by_its_path(app: ServiceApp) -> None:
    answer = await ask(app, "POST", "/things", b'{"name": "x", "parts": [{"quantity": 1}, {"quantity": "2"}]}')
    [error] = problem(answer)["errors"]
    assert error["path"] == "body.parts.1.quantity"
    [error] = problem(await ask(app, "GET", "/things?limit=many"))["errors"]
    assert error["path"] == "query.limit"


async def test_another_content_type_is_a_415(app: ServiceApp) -> None:
    answer = await ask(app, "POST", "/things", b'{"name": "x"}', kind=b"text/plain")
    assert (answer.status, problem(answer)["code"]) == (415, "unsupported_media_type")


async def test_a_405_names_the_methods_and_a_503_the_time(app: ServiceApp) -> None:
    allowed = dict((await ask(app, "PUT", "/things")).headers)[b"allow"]
    assert {b"GET", b"HEAD", b"POST", b"OPTIONS"} == set(allowed.split(b", "))
    assert dict((await ask(app, "GET", "/things/away")).headers)[b"retry-after"] == b"2"


async def test_the_openapi_document_is_valid_and_made_from_the_schemas(app: ServiceApp) -> None:
    document = json.loads((await ask(app, "GET", "/openapi.json")).body)
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/things"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ThingIn")
    for status in ("400", "413", "422", "503"):
        assert "application/problem+json" in operation["responses"][status]["content"]
    assert document["components"]["schemas"]["ThingIn"]["properties"]["name"]["maxLength"] == 10
    assert document["paths"]["/things/{thing_id}"]["get"]["parameters"][0]["schema"]["type"] == "integer"


async def test_the_documentation_needs_nothing_from_elsewhere(app: ServiceApp) -> None:
    page = (await ask(app, "GET", "/docs")).body.decode()
    assert "://" not in page
    for asset in ("css/swagger-ui.css", "js/swagger-ui-bundle.js", "js/swagger-ui-standalone-preset.js"):
        assert f"docs/assets/{asset}" in page
        answer = await ask(app, "GET", f"/docs/assets/{asset}")
        assert (answer.status, len(answer.body) > 10_000) == (200, True)
    assert (await ask(app, "GET", "/docs/assets/../../plugins.py")).status == 404
