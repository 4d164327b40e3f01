"""What the cache may hold, as bytes: plain data as JSON, bytes as they are, and that there is nothing. Never pickle."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import orjson

from app.errors import NotFound

Kind = Literal["json", "bytes", "none", "missing"]
KINDS = frozenset({"json", "bytes", "none", "missing"})

# What orjson would turn into text behind the caller's back is refused, so that a hit has the type that a miss had.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


class Payload(NamedTuple):
    """A value as it is kept. ``none``: the loader returned None; ``missing``: it raised `NotFound`."""

    kind: Kind
    data: bytes

    @property
    def negative(self) -> bool:
        """Whether it says that there is nothing."""
        return self.kind in ("none", "missing")


def encode(value: Any) -> Payload:
    """Raises: TypeError: it is neither plain data (what JSON has) nor bytes."""
    if value is None:
        return Payload("none", b"")
    if isinstance(value, bytes):
        return Payload("bytes", value)
    try:
        return Payload("json", orjson.dumps(value, option=_OPTIONS))
    except orjson.JSONEncodeError as error:
        raise TypeError(f"A cache holds plain data or bytes: {error}") from error


def encode_missing(error: NotFound) -> Payload:
    return Payload("missing", error.detail.encode())


def decode(payload: Payload) -> Any:
    """The value: a fresh one each time, so that nobody changes another's.

    Raises:
        NotFound: that is what was kept.
        ValueError: the bytes are not what their kind says.
    """
    kind, data = payload
    if kind == "json":
        return orjson.loads(data)
    if kind == "bytes":
        return data
    if kind == "missing":
        raise NotFound(data.decode("utf-8", "replace"))
    return None


def check(kind: str, data: bytes) -> Payload:
    """A payload that came from elsewhere. Raises: ValueError."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind[:20]!r}")
    payload = Payload(cast(Kind, kind), data)
    if kind == "json":
        orjson.loads(data)
    return payload
