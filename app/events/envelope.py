"""What travels: CloudEvents 1.0 in structured JSON (cloudevents.io), with the extensions that the mesh needs.

Besides CloudEvents' own attributes and its published extensions (``partitionkey``, ``traceparent``, ``expirytime``):
``dataversion``, the version of the payload; ``requestid`` and ``sandbox`` of the request in which it was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from app.errors import BadInput

CONTENT_TYPE = "application/cloudevents+json"


class Unreadable(BadInput):
    """It is no CloudEvent of ours."""

    code, title = "unreadable_event", "Unreadable event"


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event on its way.

    Args:
        id: unique for all time; by it the inbox knows that the event has had its effect.
        key: events of one key are handled in order.
        data: the payload, as JSON has it.
        expires: nobody is to handle it after that.
    """

    id: str
    type: str
    version: int
    source: str
    key: str
    time: datetime
    data: Mapping[str, Any] = field(repr=False)
    request_id: str | None = None
    traceparent: str | None = None
    sandbox: str | None = None
    expires: datetime | None = None

    def to_json(self) -> str:
        document = {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "subject": self.key,
            "time": self.time.isoformat(),
            "datacontenttype": "application/json",
            "dataversion": self.version,
            "partitionkey": self.key,
            "requestid": self.request_id,
            "traceparent": self.traceparent,
            "sandbox": self.sandbox,
            "expirytime": None if self.expires is None else self.expires.isoformat(),
            "data": self.data,
        }
        return orjson.dumps({name: value for name, value in document.items() if value is not None}).decode()


def parse(text: str | bytes) -> CloudEvent:
    """Read what `to_json` wrote.

    Raises:
        Unreadable: it is something else; the message quotes nothing of it.
    """
    try:
        document = orjson.loads(text)
        return CloudEvent(
            id=_text(document["id"]),
            type=_text(document["type"]),
            version=int(document["dataversion"]),
            source=_text(document["source"]),
            key=_text(document["partitionkey"]),
            time=_moment(document["time"]),
            data=dict(document["data"]),
            request_id=document.get("requestid"),
            traceparent=document.get("traceparent"),
            sandbox=document.get("sandbox"),
            expires=_moment(document["expirytime"]) if "expirytime" in document else None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"This is no event: {type(error).__name__}") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text is missing")
    return value


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
