"""The line misbehaves as it is told, and not otherwise."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.dev.system import until
from tests.faults import proxy
from tests.faults.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo_all, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(echo: int) -> Iterator[Proxy]:
    with proxy.to("127.0.0.1", echo) as line:
        yield line


def _echo_all(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(client,), daemon=True).start()


def _echo(client: socket.socket) -> None:
    with client:
        try:
            while data := client.recv(65_536):
                client.sendall(data)
        except OSError:
            """The client, or the line, has ended it."""


def dial(line: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout=10)


def say(client: socket.socket, words: bytes) -> bytes:
    client.sendall(words)
    heard = b""
    while len(heard) < len(words):
        heard += client.recv(len(words) - len(heard))
    return heard


def says_nothing(client: socket.socket) -> bool:
    client.settimeout(0.1)
    try:
        return client.recv(1) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(10)


def seconds_of(client: socket.socket, words: bytes) -> float:
    began = time.monotonic()
    assert say(client, words) == words
    return time.monotonic() - began


def test_what_is_said_arrives_both_ways(line: Proxy) -> None:
    with dial(line) as client:
        assert say(client, b"x" * 1_000_000) == b"x" * 1_000_000
    assert line.accepted == 1


def test_the_end_of_one_direction_is_passed_on_and_the_other_goes_on(line: Proxy) -> None:
    with dial(line) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b"last words"
    until("the line is free", lambda: line.connections == 0)


def test_a_delay_holds_every_piece_back_on_its_way_there_and_on_its_way_back(line: Proxy) -> None:
    with dial(line) as client:
        say(client, b"warm")
        line.delay(0.05)
        assert seconds_of(client, b"slow") >= 0.1
        line.delay(0.0)
        assert say(client, b"quick") == b"quick"


def test_a_delay_does_not_narrow_the_line(line: Proxy) -> None:
    line.delay(0.05)
    with dial(line) as client:
        for _ in range(20):
            client.sendall(b"piece")
        assert client.makefile("rb").read(100) == b"piece" * 20
        assert line.accepted == 1


def test_a_stalled_line_takes_connections_and_data_and_passes_them_on_when_it_flows_again(line: Proxy) -> None:
    with dial(line) as before:
        say(before, b"hello")
        line.stall()
        with dial(line) as after:
            before.sendall(b"one")
            after.sendall(b"two")
            assert says_nothing(before)
            assert says_nothing(after)
            line.flow()
            assert (before.recv(3), after.recv(3)) == (b"one", b"two")


def test_a_stalled_line_reads_no_more_than_what_is_on_its_way(line: Proxy) -> None:
    with dial(line) as client:
        say(client, b"hello")
        line.stall()
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.sendall(b"x" * 50_000_000)


def test_a_reset_ends_what_is_open_with_rst_and_new_connections_are_welcome(line: Proxy) -> None:
    with dial(line) as client:
        say(client, b"hello")
        line.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with dial(line) as client:
        assert say(client, b"again") == b"again"


def test_a_cut_ends_what_is_open_and_refuses_what_comes_until_it_is_mended(line: Proxy) -> None:
    with dial(line) as client:
        say(client, b"hello")
        line.cut()
        assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        dial(line)
    line.mend()
    with dial(line) as client:
        assert say(client, b"again") == b"again"


def test_a_limited_line_takes_its_time(line: Proxy) -> None:
    with dial(line) as client:
        line.limit(20_000)
        assert seconds_of(client, b"x" * 4_000) >= 0.1
        line.limit(None)
        assert say(client, b"x" * 1_000_000) == b"x" * 1_000_000


def test_it_can_be_led_elsewhere(line: Proxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, dial(line) as client:
        say(client, b"hello")
        line.lead_to("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with dial(line) as anew:
            there, _ = other.accept()
            with there:
                anew.sendall(b"you?")
                assert there.recv(4) == b"you?"


def test_a_far_end_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with proxy.to("127.0.0.1", port) as line, dial(line) as client:
        assert client.recv(1) == b""
