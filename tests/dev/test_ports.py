"""Ports on this machine."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

import pytest

from app.dev import ports
from app.errors import Unavailable


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


def test_a_port_that_somebody_listens_on_is_not_free(taken: int) -> None:
    assert not ports.is_free("127.0.0.1", taken)
    with pytest.raises(Unavailable, match=f"Port {taken} is taken; choose another with --port"):
        ports.require("127.0.0.1", taken)


def test_whoever_connects_to_a_listening_socket_waits_in_its_queue() -> None:
    port = next(ports.free_from(20_000))
    with ports.listen("127.0.0.1", port) as listener:
        assert not ports.is_free("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, address = listener.accept()
            with accepted:
                assert address == client.getsockname()


def test_a_taken_port_is_not_listened_on(taken: int) -> None:
    with pytest.raises(Unavailable, match=f"Port {taken} is taken; choose another with --port"):
        ports.listen("127.0.0.1", taken)


def test_free_ports_pass_over_what_is_taken_and_repeat_nothing(taken: int) -> None:
    found = list(itertools.islice(ports.free_from(taken - 2), 5))
    assert taken not in found
    assert len(set(found)) == 5


def test_free_ports_go_round_at_the_end() -> None:
    found = list(itertools.islice(ports.free_from(65_536), 2))
    assert all(1024 <= port < 65_536 for port in found)


def test_an_address_of_somebody_else_is_said_so() -> None:
    with pytest.raises(Unavailable, match=r"Cannot listen on 192\.0\.2\.1"):
        ports.is_free("192.0.2.1", 8000)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("db.internal", "http://db.internal:80"),
    ],
)
def test_an_address_says_how_to_reach_it_from_here(host: str, url: str) -> None:
    assert ports.address(host, 80) == url
