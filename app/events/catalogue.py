"""The AsyncAPI document of a service: what it sends and what it handles, made from the classes of the events.

One channel for each service whose events are concerned; a message is known by type and version, as ``orders.placed.v1``, and is
the envelope (see `envelope`) with a payload. Specification: AsyncAPI 3.0.0; schemas are those of JSON Schema draft 07.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from app.events.envelope import CONTENT_TYPE
from app.events.event import Event
from app.events.handling.handlers import Handler, Handlers
from app.events.publishing.outbox import Outbox

VERSION = "3.0.0"
_ENVELOPE = "CloudEvent"
_SCHEMAS = "#/components/schemas/"

_TEXT, _MOMENT = {"type": "string"}, {"type": "string", "format": "date-time"}
# As `envelope` writes it.
_ENVELOPE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 in structured JSON, with the extensions of the mesh.",
    "required": ["specversion", "id", "type", "source", "time", "dataversion", "partitionkey", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _TEXT | {"description": "unique for all time: who has handled it once does not do so again"},
        "type": _TEXT,
        "source": _TEXT | {"description": "the service that sends it, as in /orders"},
        "subject": _TEXT,
        "time": _MOMENT | {"description": "when it was published"},
        "datacontenttype": {"const": "application/json"},
        "dataversion": {"type": "integer", "minimum": 1, "description": "the version of the payload"},
        "partitionkey": _TEXT
        | {"description": "events of one key are handled in the order in which they were published"},
        "requestid": _TEXT | {"description": "the request in which it was published"},
        "traceparent": _TEXT,
        "sandbox": _TEXT,
        "expirytime": _MOMENT | {"description": "nobody is to handle it after that"},
        "data": {"type": "object"},
    },
}


@dataclass(frozen=True, slots=True)
class _Use:
    """One event that the service sends, or that `handler` handles."""

    event: type[Event]
    handler: Handler | None = None

    @property
    def message(self) -> str:
        return f"{self.event.event_type}.v{self.event.event_version}"

    @property
    def action(self) -> str:
        return "send" if self.handler is None else "receive"

    @property
    def mode(self) -> JsonSchemaMode:
        return "serialization" if self.handler is None else "validation"


class _Draft07(GenerateJsonSchema):
    """What differs from pydantic's own 2020-12: tuples of fixed length, and `discriminator`, which AsyncAPI takes for a text."""

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        made = super().tuple_schema(schema)
        if "prefixItems" in made:
            rest = made.pop("items", None)
            made["items"] = made.pop("prefixItems")
            made |= {} if rest is None else {"additionalItems": rest}
        return made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        made = super().tagged_union_schema(schema)
        made.pop("discriminator", None)
        return made


def document(
    title: str, *, version: str, description: str = "", outbox: Outbox | None, handlers: Handlers | None
) -> dict[str, Any]:
    """The document as plain values; a service without events gets one without channels."""
    uses = [_Use(event) for event in (outbox.sends if outbox else ())]
    uses += [_Use(handler.event, handler) for handler in handlers or ()]
    info = {"title": title, "version": version} | ({"description": description} if description else {})
    head = {"asyncapi": VERSION, "info": info, "defaultContentType": CONTENT_TYPE}
    if not uses:
        return head | {"channels": {}, "operations": {}}
    schemas, payloads = _schemas(uses)
    return head | {
        "channels": {service: _channel(service, uses) for service in sorted({use.event.service() for use in uses})},
        "operations": {f"{use.action}.{use.message}": _operation(use) for use in uses},
        "components": {"messages": _messages(uses, payloads), "schemas": schemas},
    }


def _schemas(uses: Iterable[_Use]) -> tuple[dict[str, Any], Mapping[str, JsonSchemaValue]]:
    """All schemas by name, and by message a reference to that of its payload: the sender's own, if it is known here."""
    # The same class may be sent and handled: then once is enough.
    first: dict[str, _Use] = {}
    for use in uses:
        first.setdefault(use.message, use)
    models = [(use.event, use.mode) for use in first.values()]
    references, definitions = models_json_schema(models, ref_template=_SCHEMAS + "{model}", schema_generator=_Draft07)
    payloads = {message: references[use.event, use.mode] for message, use in first.items()}
    return {**definitions.get("$defs", {}), _ENVELOPE: _ENVELOPE_SCHEMA}, payloads


def _channel(service: str, uses: Iterable[_Use]) -> dict[str, Any]:
    messages = sorted({use.message for use in uses if use.event.service() == service})
    return {
        "address": f"events:{service}:{{partition}}",
        "title": f"Events of {service}",
        "description": "Streams of the Redis of the mesh, behind its prefix; the field `event` of each entry has the message.",
        "parameters": {"partition": {"description": "a number from 0; it follows from the event's key"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _operation(use: _Use) -> dict[str, Any]:
    service = use.event.service()
    made = {
        "action": use.action,
        "channel": {"$ref": f"#/channels/{service}"},
        "messages": [{"$ref": f"#/channels/{service}/messages/{use.message}"}],
    }
    return made | _said(use.event if use.handler is None else use.handler.call)


def _messages(uses: Iterable[_Use], payloads: Mapping[str, JsonSchemaValue]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for use in uses:
        made.setdefault(use.message, _message(use, payloads[use.message]))
    return made


def _message(use: _Use, payload: JsonSchemaValue) -> dict[str, Any]:
    event = use.event
    this = {"type": {"const": event.event_type}, "dataversion": {"const": event.event_version}, "data": payload}
    made = {
        "name": use.message,
        "title": event.__name__,
        "contentType": CONTENT_TYPE,
        "payload": {"allOf": [{"$ref": _SCHEMAS + _ENVELOPE}, {"type": "object", "properties": this}]},
    }
    return made | _said(event)


def _said(thing: object) -> dict[str, str]:
    """What its own docstring says, and not that of a class from which it comes: the first line, and the rest."""
    said = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    summary, _, rest = said.partition("\n")
    return {name: text for name, text in (("summary", summary), ("description", rest.strip())) if text}
