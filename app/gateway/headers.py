"""Which headers pass the edge: pure functions over lists of pairs, order and duplicates kept.

Hop-by-hop headers belong to one connection and end here (RFC 9110, 7.6.1). What a client could forge (the mesh's own
names, forwarding headers, names with underscores, which fold into others in CGI's naming: CVE-2026-3902) is dropped
and, where it is known, written anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from app import context

Network = IPv4Network | IPv6Network
RawHeaders = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})

# What the mesh client writes itself, from the context that was made of these, and what the server has dealt with.
_CONSUMED = frozenset({
    context.REQUEST_ID.encode(), context.TIMEOUT_MS.encode(), context.TRACEPARENT.encode(), b"grpc-timeout",
    b"x-envoy-expected-rq-timeout-ms", b"expect", b"content-length",
})  # fmt: skip
_FORWARDED = frozenset({b"forwarded", b"x-real-ip"})

# Our server writes its own of these.
_REWRITTEN = frozenset({b"date", b"server"})

_X_FORWARDED = b"x-forwarded-"
_X_MESH = b"x-mesh-"
_PROXY = b"proxy-"

_memo: dict[bytes, bool] = {}
# Names come from clients: the memo is bounded, so that nobody can fill it.
_MEMO_LIMIT = 512


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end of the connection, and how it spoke."""

    address: str | None
    scheme: str
    host: bytes | None


def passes_inward(name: bytes) -> bool:
    """Whether a request header of this lower-case name goes on to the service."""
    known = _memo.get(name)
    if known is None:
        known = not (
            b"_" in name
            or name in _HOP_BY_HOP
            or name in _CONSUMED
            or name in _FORWARDED
            or name.startswith((b":", _X_FORWARDED, _X_MESH, _PROXY))
        )
        if len(_memo) < _MEMO_LIMIT:
            _memo[name] = known
    return known


def inward(headers: RawHeaders, client: Client, *, trusted: Sequence[Network] = ()) -> list[tuple[str, str]]:
    """The request headers for the service.

    Args:
        headers: as received, names lower-case.
        client: the peer of the connection.
        trusted: networks of proxies in front of us; only their word on who is behind them counts.
    """
    headers = list(headers)
    nominated = _nominated(headers)
    passed = [
        (name.decode("latin-1"), _text(value))
        for name, value in headers
        if passes_inward(name) and name not in nominated
    ]
    passed.extend(_forwarded(headers, client, believed=_is_trusted(client.address, trusted)))
    return passed


def outward(headers: RawHeaders, status: int) -> list[tuple[bytes, bytes]]:
    """The service's response headers for the client, names lower-case."""
    lowered = [(name.lower(), value) for name, value in headers]
    nominated = _nominated(lowered)
    return [
        (name, value)
        for name, value in lowered
        if name not in _HOP_BY_HOP
        and name not in _REWRITTEN
        and name not in nominated
        # What peers tell each other is no stranger's business.
        and not name.startswith((_PROXY, _X_MESH))
        # RFC 9110, 8.6: a 204 has no length.
        and not (status == 204 and name == b"content-length")
    ]


def _nominated(headers: RawHeaders) -> frozenset[bytes]:
    """The names that Connection lists: they belong to this connection too."""
    values = [value for name, value in headers if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def _text(value: bytes) -> str:
    # The client library writes UTF-8: what is valid UTF-8 passes byte for byte.
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _forwarded(headers: RawHeaders, client: Client, *, believed: bool) -> list[tuple[str, str]]:
    address = client.address or "unknown"
    host = _text(client.host) if client.host is not None else None
    if not believed:
        told = [("x-forwarded-for", address), ("x-forwarded-proto", client.scheme)]
        return [*told, ("x-forwarded-host", host)] if host else told
    said = [(name, _text(value)) for name, value in headers if name.startswith(_X_FORWARDED) or name in _FORWARDED]
    names = {name for name, _ in said}
    chain = ", ".join([value for name, value in said if name == b"x-forwarded-for"] + [address])
    kept = [(name.decode("latin-1"), value) for name, value in said if name != b"x-forwarded-for" and b"_" not in name]
    if b"x-forwarded-proto" not in names:
        kept.append(("x-forwarded-proto", client.scheme))
    if b"x-forwarded-host" not in names and host:
        kept.append(("x-forwarded-host", host))
    return [("x-forwarded-for", chain), *kept]


def _is_trusted(address: str | None, trusted: Sequence[Network]) -> bool:
    if not trusted or address is None:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:  # a unix socket has no address
        return False
    return any(parsed in network for network in trusted)
