"""The AsyncAPI document says what is really sent, in the form that AsyncAPI 3.0 asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import redis
from pydantic import BaseModel, Field

from app import settings
from app.data import tables
from app.events import Event, Handlers, Outbox, catalogue
from app.events.envelope import CONTENT_TYPE
from app.service import Service, discover, load
from app.web.factory import create_app
from tests.events import shop as toy
from tests.events.shop import Shop
from tests.web.harness import Exchange

Document = dict[str, Any]

# Of the specification's objects, the fixed fields that it allows.
FIELDS = {
    "info": {"title", "version", "description"},
    "channel": {"address", "title", "summary", "description", "parameters", "messages"},
    "operation": {"action", "channel", "messages", "title", "summary", "description"},
    "message": {"name", "title", "summary", "description", "contentType", "payload"},
}
KEY = re.compile(r"[a-zA-Z0-9.\-_]+")


class Cash(BaseModel):
    kind: Literal["cash"]


class Card(BaseModel):
    kind: Literal["card"]
    months: tuple[int, int]


class Line(BaseModel):
    sku: str
    quantity: int = Field(ge=1)


class Placed(Event, type="orders.placed", key="reference"):
    """Somebody has ordered something.

    The stock is another's concern.
    """

    reference: str
    lines: tuple[Line, ...]
    payment: Annotated[Cash | Card, Field(discriminator="kind")]


class PlacedForSomebody(Event, type="orders.placed", version=2, key="reference"):
    reference: str
    user_id: int | None = None


class Left(Event, type="users.left", key="user_id"):
    """Somebody has gone."""

    user_id: int


outbox = Outbox("orders", tables.metadata(), sends=(Placed, PlacedForSomebody))
handlers = Handlers()


@handlers.on(Left)
async def forget(left: Left) -> None:
    """Cancel what they have ordered."""


@handlers.on(Placed)
async def remember(placed: Placed) -> None: ...


@pytest.fixture
def document() -> Document:
    return catalogue.document("orders", version="7", description="Orders.", outbox=outbox, handlers=handlers)


def require_valid(document: Document) -> None:
    """The rules of AsyncAPI 3.0.0 that this document could break."""
    assert document["asyncapi"] == "3.0.0"
    assert document["info"]["title"]
    assert isinstance(document["info"]["version"], str)
    assert set(document) <= {"asyncapi", "info", "defaultContentType", "channels", "operations", "components"}
    components = document.get("components", {"messages": {}, "schemas": {}})
    for kind, found in (
        ("info", [document["info"]]),
        ("channel", document["channels"].values()),
        ("operation", document["operations"].values()),
        ("message", components["messages"].values()),
    ):
        assert all(set(each) <= FIELDS[kind] for each in found), kind
    for name in (*document["channels"], *document["operations"], *components["messages"], *components["schemas"]):
        assert KEY.fullmatch(name), name
    for channel in document["channels"].values():
        assert set(re.findall(r"{(.*?)}", channel["address"])) == set(channel["parameters"])
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        # A subset of the channel's, named there.
        own = [f"{operation['channel']['$ref']}/messages/" in each["$ref"] for each in operation["messages"]]
        assert own
        assert all(own)
    for reference in references(document):
        found_there(document, reference)
    for schema in (*components["schemas"].values(), *(each["payload"] for each in components["messages"].values())):
        jsonschema.Draft7Validator.check_schema(schema)
    # AsyncAPI's own discriminator is a text.
    assert "discriminator" not in json.dumps(document)
    assert "prefixItems" not in json.dumps(document)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for name, each in value.items() if name == "$ref")
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from references(each)


def found_there(document: Document, reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def checking(document: Document, message: str) -> jsonschema.Draft7Validator:
    """Of events that stand for `message`."""
    assert message in document["components"]["messages"]
    return jsonschema.Draft7Validator({**document, "$ref": f"#/components/messages/{message}/payload"})


def test_the_document_is_valid(document: Document) -> None:
    require_valid(document)


def test_it_has_a_channel_for_each_service_and_an_operation_for_each_event_and_handler(document: Document) -> None:
    assert {name: list(channel["messages"]) for name, channel in document["channels"].items()} == {
        "orders": ["orders.placed.v1", "orders.placed.v2"],
        "users": ["users.left.v1"],
    }
    assert {name: operation["channel"]["$ref"] for name, operation in document["operations"].items()} == {
        "send.orders.placed.v1": "#/channels/orders",
        "send.orders.placed.v2": "#/channels/orders",
        "receive.orders.placed.v1": "#/channels/orders",
        "receive.users.left.v1": "#/channels/users",
    }
    assert all(name.startswith(each["action"]) for name, each in document["operations"].items())


def test_it_says_what_the_docstrings_say_and_nothing_where_there_is_none(document: Document) -> None:
    placed, next_, left = (
        document["components"]["messages"][f"{name}"]
        for name in ("orders.placed.v1", "orders.placed.v2", "users.left.v1")
    )
    assert (placed["summary"], placed["description"]) == (
        "Somebody has ordered something.",
        "The stock is another's concern.",
    )
    assert "summary" not in next_
    assert (left["summary"], left["contentType"]) == ("Somebody has gone.", CONTENT_TYPE)
    assert document["operations"]["receive.users.left.v1"]["summary"] == "Cancel what they have ordered."
    assert "summary" not in document["operations"]["receive.orders.placed.v1"]


def test_a_payload_must_be_that_of_its_type_and_version(document: Document) -> None:
    good: Document = {
        "specversion": "1.0", "id": "1", "type": "orders.placed", "source": "/orders", "time": "2026-11-28T12:00:00Z",
        "dataversion": 1, "partitionkey": "r1",
        "data": {
            "reference": "r1", "lines": [{"sku": "x", "quantity": 1}], "payment": {"kind": "card", "months": [1, 2]}
        },
    }  # fmt: skip
    check = checking(document, "orders.placed.v1")
    assert check.is_valid(good)
    for wrong in ({"dataversion": 2}, {"type": "orders.lost"}, {"data": {"reference": "r1"}}, {"id": 7}):
        assert not check.is_valid(good | wrong)
    for wrong_data in ({"lines": [{"sku": "x", "quantity": 0}]}, {"payment": {"kind": "card", "months": ["x", 2]}}):
        assert not check.is_valid(good | {"data": good["data"] | wrong_data})
    assert not check.is_valid({name: value for name, value in good.items() if name != "partitionkey"})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_published_is_what_the_document_says(shop: Shop, store: redis.Redis) -> None:
    document = catalogue.document(toy.NAME, version="1", outbox=toy.outbox, handlers=None)
    async with shop.process():
        await shop.buy("ann")
        await shop.until_sold(1)
    streams: list[Any] = [store.xrange(shop.keys.events(toy.NAME, partition)) for partition in range(4)]
    [published] = [fields["event"] for stream in streams for _, fields in stream]
    check = checking(document, "shop.bought.v1")
    check.validate(json.loads(published))
    # And no more than it says.
    assert set(json.loads(published)) <= set(document["components"]["schemas"]["CloudEvent"]["properties"])


@pytest.mark.parametrize("name", discover())
def test_every_service_has_a_valid_document(name: str) -> None:
    service = load(name)
    require_valid(
        catalogue.document(
            name, version="1", description=service.description, outbox=service.outbox, handlers=service.handlers
        )
    )


@pytest.mark.parametrize(
    ("service", "channels"),
    [
        (Service("orders", models=tables.metadata(), migrations=settings.ROOT, outbox=outbox, handlers=handlers), 2),
        (Service("things"), 0),
    ],
    ids=["with events", "without"],
)
async def test_everybody_may_read_it(service: Service, channels: int) -> None:
    app = create_app(service, settings.load())
    answer = await Exchange(path="/asyncapi.json", raw_path=b"/asyncapi.json").run(app.asgi_app)
    document = json.loads(answer.body)
    assert (answer.status, len(document["channels"])) == (200, channels)
    require_valid(document)
