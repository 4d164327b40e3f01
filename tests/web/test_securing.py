"""What the OpenAPI document says of who may."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from app import service as service_room
from app import settings
from app.auth import owner, public, requires, requires_role
from app.service import Service
from app.web import API
from app.web.factory import create_app


class ThingPath(BaseModel):
    thing_id: int
    rest: str


api = API("things", __name__, prefix="/things")


@api.get("")
@public
async def browse() -> Any:
    """List."""


@api.post("")
@requires("things:write")
async def create() -> Any:
    """Create."""


@api.get("/<int:thing_id>/<path:rest>")
@(requires("things:read") & owner(of="thing_id") | requires_role("admin"))
async def read(path: ThingPath) -> Any:
    """Read."""


def document(*blueprints: Blueprint, **facts: Any) -> Any:
    app = create_app(Service("things", blueprints=blueprints, **facts), settings.load())
    return app.api_doc


def test_a_route_says_that_it_asks_for_a_token_and_what_for() -> None:
    found = document(api)
    OpenAPIV31SpecValidator(found).validate()
    assert found["components"]["securitySchemes"] == {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A JWT access token (RFC 9068). Scopes: things:read, things:write.",
        }
    }
    create = found["paths"]["/things"]["post"]
    assert create["security"] == [{"bearer": []}]
    assert create["description"].endswith("Asks for: things:write.")
    read = found["paths"]["/things/{thing_id}/{rest}"]["get"]
    assert read["description"].endswith("Asks for: ((things:read & owner of thing_id) | role admin).")
    for operation in (create, read):
        for status in ("401", "403"):
            [kind] = operation["responses"][status]["content"]
            assert kind == "application/problem+json"


def test_a_public_route_asks_for_nothing() -> None:
    browse = document(api)["paths"]["/things"]["get"]
    assert "security" not in browse
    assert not {"401", "403"} & set(browse["responses"])


def test_where_all_is_public_there_is_no_scheme() -> None:
    alone = public(API("alone", __name__, prefix="/alone"))
    alone.get("")(lambda: "")
    assert "securitySchemes" not in document(alone)["components"]


def test_what_a_service_asks_of_its_callers_is_said_as_well() -> None:
    create = document(api, callers=("orders",))["paths"]["/things"]["post"]
    assert create["description"].endswith("Asks for: (called by orders & things:write).")


@pytest.mark.parametrize("name", ["users", "orders", "inventory", "gateway"])
def test_the_documents_of_this_house_are_valid_and_say_who_may(name: str) -> None:
    app = create_app(service_room.load(name), settings.load())
    OpenAPIV31SpecValidator(app.api_doc).validate()
    rules = {
        (route.rule, method): app.rules.get((route.endpoint, method))
        for route in app.url_map.iter_rules()
        for method in route.methods or ()
    }
    for path, operations in app.api_doc["paths"].items():
        for method, operation in operations.items():
            [rule] = {
                rule for (known, verb), rule in rules.items()
                if verb == method.upper() and known.replace("<int:", "<").replace("<", "{").replace(">", "}") == path
            }  # fmt: skip
            assert rule is not None
            assert ("security" in operation) is not rule.is_public
