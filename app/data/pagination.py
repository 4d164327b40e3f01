"""Cursor pagination over a primary key (the seek method, Markus Winand, use-the-index-luke.com/no-offset).

A page is ``WHERE key > :after ORDER BY key LIMIT :limit + 1``: it costs the same at any depth, and rows that come or
go between two pages neither repeat nor hide others. The cursor is opaque to clients: base64url of the last key, with
a letter in front that tells numbers from texts, so that a cursor of one kind of list is refused by the other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from app.data.fields import MAX_ID
from app.errors import InvalidInput

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_CURSOR = 512

_Item = TypeVar("_Item")


class PageQuery(BaseModel):
    """The query parameters of every list."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="The most items on one page.")] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Field(max_length=MAX_CURSOR, description="`next` of the page before; opaque.")] = None


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """Some items, and the cursor of the page after them; None at the end."""

    items: Sequence[_Item]
    next: str | None


def cut(rows: Sequence[_Item], limit: int, key: Callable[[_Item], int | str]) -> Page[_Item]:
    """Make a page of `limit` items out of up to ``limit + 1`` rows: the one too many says that there is more."""
    items = rows[:limit]
    return Page(items, encode(key(items[-1])) if len(rows) > limit else None)


def encode(key: int | str) -> str:
    """The cursor that continues after `key`."""
    text = f"i{key}" if isinstance(key, int) else f"s{key}"
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def after_id(cursor: str | None) -> int:
    """The id that `cursor` continues after; 0 for the first page.

    Raises:
        InvalidInput: it is not a cursor of a list that is ordered by id.
    """
    if cursor is None:
        return 0
    digits = _decode(cursor, "i")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise _malformed()
    number = int(digits)
    if number > MAX_ID or encode(number) != cursor:
        raise _malformed()
    return number


def after_key(cursor: str | None) -> str:
    """The text key that `cursor` continues after; "" for the first page.

    Raises:
        InvalidInput: it is not a cursor of a list that is ordered by a text.
    """
    if cursor is None:
        return ""
    key = _decode(cursor, "s")
    if "\0" in key or encode(key) != cursor:
        raise _malformed()
    return key


def links(path: str, page: Page[_Item], **query: int | str | None) -> dict[str, str]:
    """The ``Link`` header (RFC 8288) to the first page of `path` and the next, with the parameters that made this one."""
    parameters = {name: value for name, value in query.items() if value is not None}
    found = [_link(path, parameters, "first")]
    if page.next is not None:
        found.append(_link(path, {**parameters, "cursor": page.next}, "next"))
    return {"Link": ", ".join(found)}


def _link(path: str, parameters: Mapping[str, int | str], relation: str) -> str:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f'<{path}{query}>; rel="{relation}"'


def _decode(cursor: str, kind: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise _malformed() from None
    if text[:1] != kind:
        raise _malformed()
    return text[1:]


def _malformed() -> InvalidInput:
    problem = {"path": "query.cursor", "message": "not a cursor of this list", "type": "cursor"}
    return InvalidInput("The cursor is malformed", errors=[problem])
