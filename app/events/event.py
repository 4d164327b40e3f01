"""What happened, as a value: one class for each kind of event and version.

    class OrderPlaced(Event, type="orders.placed", version=1, key="reference"):
        \"\"\"Somebody has ordered something.\"\"\"
        reference: str
        lines: tuple[Line, ...]

A type begins with the name of the service that sends it. Who reads an event declares a class of its own with the same type and
version, and only the fields that it needs: services share no code. A change that such a reader could not follow is a new
version; a field more is none.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,39}(\.[a-z][a-z0-9_]{0,39}){1,3}")


class Event(BaseModel):
    """Base of all events; its subclasses are frozen pydantic models.

    Attributes:
        event_type: as in ``orders.placed``.
        event_version: from 1.
        event_key: the field whose value orders events: those of one key are handled in the order in which they were
            published. None: the event is in no order with others.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: ClassVar[str] = ""
    event_version: ClassVar[int] = 1
    event_key: ClassVar[str | None] = None

    def __init_subclass__(cls, **_: Any) -> None:
        """The class's own arguments are read when its fields are known: see below."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        type: str = "",  # noqa: A002  # as CloudEvents calls it
        version: int = 1,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not type and cls.event_type:  # made of another event by inheritance, it is still that one
            return
        if not _TYPE.fullmatch(type):
            raise TypeError(f"{cls.__name__}: an event's type looks like orders.placed, not {type!r}")
        if version < 1:
            raise TypeError(f"{cls.__name__}: versions count from 1")
        if key is not None and key not in cls.model_fields:
            raise TypeError(f"{cls.__name__}: the key {key!r} is none of its fields")
        cls.event_type, cls.event_version, cls.event_key = type, version, key

    @classmethod
    def service(cls) -> str:
        """Who sends it."""
        return cls.event_type.partition(".")[0]

    def key(self) -> str | None:
        """The value that orders it, as text."""
        return None if self.event_key is None else str(getattr(self, self.event_key))


Kind = tuple[str, int]


def kind(event: type[Event]) -> Kind:
    """By what an event is known: type and version."""
    return event.event_type, event.event_version
