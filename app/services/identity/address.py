"""Who is at the other end: the address of the machine that asks, as far as it is known."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from flask import request

from app.web import resources

Network = IPv4Network | IPv6Network


def current() -> str:
    """That of the present request."""
    settings = resources.settings
    return behind(
        request.remote_addr,
        request.headers.get("X-Forwarded-For", ""),
        peers=settings.registry.allowed_networks,
        proxies=settings.trusted_proxies,
    )


def behind(remote: str | None, forwarded_for: str, *, peers: Sequence[Network], proxies: Sequence[Network]) -> str:
    """Who is at the other end.

    Args:
        remote: whoever connected: as a rule the gateway, which writes X-Forwarded-For anew.
        forwarded_for: that header.
        peers: where the mesh's own processes are; nobody else's word counts.
        proxies: the gateway's trusted proxies, which are passed over.
    """
    if not _is_in(remote, peers):
        return remote or "unknown"
    for hop in reversed([hop.strip() for hop in forwarded_for.split(",")]):
        if not _is_address(hop):
            break
        if not _is_in(hop, proxies):
            return hop
    return remote or "unknown"


def neighbourhood(address: str) -> str:
    """Whose attempts count together: one address; of IPv6 the 64 bits that one subscriber gets."""
    if not _is_address(address):
        return address
    parsed = ip_address(address)
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed) >> 64 << 64, 64)))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(address: str | None, networks: Sequence[Network]) -> bool:
    if address is None or not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in networks)
