"""What an instance says about itself, and the door where such a record is checked: it is an address we connect to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, TypeAdapter, ValidationError

MAX_RECORD_BYTES: Final = 16_384

State = Literal["starting", "ready", "draining", "forced-out"]
Network = IPv4Network | IPv6Network

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
_Word = Annotated[str, Field(max_length=128, pattern=r"^[\x20-\x7e]*$")]
_Prefix = Annotated[str, Field(max_length=200, pattern=r"^(/[a-z0-9._~-]+)+$")]
_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Amount = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,9}")


class PoisonedRecord(ValueError):
    """A registry record that must not be believed; the message says why and quotes no more than a little of it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What moves with every beat and is no change of the record.

    Args:
        in_flight: requests being served now.
        limit: how many it would serve at once, 0 if unlimited.
        loop_lag_seconds: how late its event loop last woke up.
    """

    in_flight: _Count = 0
    limit: _Count = 0
    loop_lag_seconds: _Amount = 0.0


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a service.

    Args:
        generation: grows with every start under the same `id`; the lower one is refused.
        url: ``http://host:port`` without a path.
        weight: share of the load relative to the others; 0 gets nothing.
        prefixes: public path prefixes that it serves, as in ``("/users",)``.
        started_at: seconds since the epoch, of its own clock.
    """

    service: _Name
    id: _Id
    generation: _Count
    url: Annotated[str, Field(max_length=255)]
    version: _Word = ""
    zone: _Word = ""
    weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 1.0
    state: State = "ready"
    sandbox: _Id | None = None
    prefixes: Annotated[tuple[_Prefix, ...], Field(max_length=64)] = ()
    openapi_digest: _Word = ""
    pid: _Count = 0
    started_at: _Amount = 0.0

    @property
    def takes_requests(self) -> bool:
        return self.state == "ready" and self.weight > 0


_instances = TypeAdapter(Instance)
_loads = TypeAdapter(Load)
_STORED = tuple(field.name for field in fields(Instance))


def encode(instance: Instance) -> bytes:
    """The record as it is stored: ``<generation> <JSON>``, the generation in front so that scripts need no JSON."""
    record = {name: getattr(instance, name) for name in _STORED}
    return b"%d %b" % (instance.generation, orjson.dumps(record))


def encode_load(load: Load) -> bytes:
    return orjson.dumps(load)


def decode(raw: bytes, networks: Sequence[Network]) -> Instance:
    """Read a stored record.

    Raises:
        PoisonedRecord: too long, malformed, breaks the schema, or its address is outside `networks`.
    """
    if not 0 < len(raw) <= MAX_RECORD_BYTES:
        raise PoisonedRecord("empty, or longer than any honest record")
    generation, _, document = raw.partition(b" ")
    instance: Instance = _validated(_instances, document)
    if generation != b"%d" % instance.generation:
        raise PoisonedRecord("its generation contradicts itself")
    check_url(instance.url, networks)
    return instance


def decode_load(raw: bytes) -> tuple[int, Load]:
    """Read stored load figures: Redis's time of the beat in ms, and the figures.

    Raises:
        PoisonedRecord: as for `decode`.
    """
    beat_ms, _, document = raw.partition(b" ")
    if not (beat_ms.isdigit() and len(beat_ms) < 16):
        raise PoisonedRecord("load without the time of its beat")
    load: Load = _validated(_loads, document)
    return int(beat_ms), load


def _validated(adapter: TypeAdapter[Any], document: bytes) -> Any:
    try:
        return adapter.validate_json(document, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise PoisonedRecord(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg'][:120]}") from None


def check_url(url: str, networks: Sequence[Network]) -> None:
    """Refuse whatever is not ``http(s)://host:port`` with a host that may be in `networks`.

    A host name passes here on its looks; the transport checks each address that it resolves to when it connects,
    where no second resolution can differ from the one that was checked.

    Raises:
        PoisonedRecord: says what is wrong.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise PoisonedRecord("url cannot be read") from error
    bare = parts.scheme in {"http", "https"} and not (parts.path or parts.query or parts.fragment)
    if not (bare and port and "@" not in parts.netloc and url.isascii() and url.isprintable()):
        raise PoisonedRecord("url is not http(s)://host:port")
    address = _literal(host)
    if address is None and not _HOST_NAME.fullmatch(host):
        raise PoisonedRecord("url's host is neither an address nor a name")
    if address is not None and not allowed(address, networks):
        raise PoisonedRecord(f"address {address} is outside the allowed networks")


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def allowed(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    """Whether `address` lies in one of `networks`; an IPv4 address in IPv6 clothes counts as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in networks)
