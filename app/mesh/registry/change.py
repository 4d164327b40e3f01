"""One entry of the registry's log, as it stands there: not believed before `reading` has looked at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from app.mesh.registry.operations import Position, raw, text

# up: a record that is new or differs. left: by its own wish. expired: swept, its lease had ended. wish: what an operator
# wants of an instance. rule: a service's rule. other: of a later version than ours, passed over.
Op = Literal["up", "left", "expired", "wish", "rule", "other"]
_OPS: Final = frozenset({"up", "left", "expired", "wish", "rule"})


@dataclass(frozen=True, slots=True)
class Change:
    """Args:
    prev: the mark before it.
    body: the record, wish or rule; empty for who is gone.
    """

    position: Position
    prev: str
    op: Op
    service: str
    id: str
    body: bytes


def read_change(key: bytes, fields: Mapping[bytes, bytes]) -> Change:
    """An entry of the stream. What stands in no field reads as a gap later on, which a snapshot then fills."""
    field = {text(name): raw(value) for name, value in fields.items()}
    op = text(field.get("op", b""))
    return Change(
        position=Position(
            text(field.get("epoch", b"")), int(text(key).partition("-")[0]), text(field.get("mark", b""))
        ),
        prev=text(field.get("prev", b"")),
        op=cast("Op", op) if op in _OPS else "other",
        service=text(field.get("service", b"")),
        id=text(field.get("id", b"")),
        body=field.get("record", b""),
    )
