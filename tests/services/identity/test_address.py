from __future__ import annotations

from ipaddress import ip_network

import pytest

from app.services.identity import address as addresses

PEERS = (ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"))
PROXIES = (ip_network("192.0.2.0/24"),)


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("10.0.0.2", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.2", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.2", "1.1.1.1, 203.0.113.9, 192.0.2.1", "203.0.113.9"),
        ("10.0.0.2", "192.0.2.1", "10.0.0.2"),
        ("10.0.0.2", "", "10.0.0.2"),
        ("10.0.0.2", "unknown", "10.0.0.2"),
        ("10.0.0.2", "1.1.1.1, <script>", "10.0.0.2"),
        ("203.0.113.5", "1.1.1.1", "203.0.113.5"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        (None, "1.1.1.1", "unknown"),
    ],
)
def test_the_address_is_the_last_that_somebody_of_ours_saw(remote: str | None, forwarded: str, address: str) -> None:
    assert addresses.behind(remote, forwarded, peers=PEERS, proxies=PROXIES) == address


@pytest.mark.parametrize(
    ("address", "together"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", "unknown"),
    ],
)
def test_one_subscriber_has_one_allowance(address: str, together: str) -> None:
    assert addresses.neighbourhood(address) == together
