"""What is plain HTTP/1.1, held against h11: whatever is taken here, h11 understands in the same way."""

from __future__ import annotations

from typing import Any

import h11
import pytest
from hypercorn.utils import build_and_validate_headers
from hypothesis import given, settings
from hypothesis import strategies as st

from app.web.serving import plain

DATED = [(b"date", b"Sat, 28 Nov 2026 12:00:00 GMT")]


def mostly(right: list[bytes], wrong: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of `right`, or now and then one of `wrong`: a message with many faults would never be taken for plain."""
    return st.integers(0, 9).flatmap(lambda draw: st.sampled_from(wrong if draw == 9 else right))


# What is right, what is nearly right, and what smugglers send.
names = mostly(
    [b"Accept", b"X_Y", b"x-empty", b"!#$%&'*+.^`|~9"],
    [b"Host", b"Content-Length", b"content-length ", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b" folded",
     b"", b":authority", b"caf\xe9", b"a\x00b"],
)  # fmt: skip
values = mostly(
    [b"x", b"", b"3", b"keep-alive", b"in side", b"in\tside", b"caf\xe9"],
    [b"0", b"03", b"+3", b"3, 3", b"3" * 21, b"\xb2", b"chunked", b"close", b"Keep-Alive", b"100-continue", b"h2c",
     b"  padded \t", b"\x00", b"a\x00b", b"a\rb", b"a\nb", b"a\r\nEvil: yes", b"\x0b", b"\x7f", b"\x01"],
)  # fmt: skip
ends = mostly([b"\r\n"], [b"\n", b"\r", b""])
headers = st.lists(st.tuples(names, values), max_size=3)
lines = st.lists(st.builds(lambda n, v, e: n + b":" + v + e, names, values, ends), max_size=3).map(b"".join)
heads = st.builds(
    lambda method, target, version, host, rest, end: b"%b %b %b\r\n%b%b%b" % (method, target, version, host, rest, end),
    mostly([b"GET", b"POST", b"DELETE"], [b"HEAD", b"get", b"CONNECT", b"PRI"]),
    mostly([b"/", b"/a?b=%20#c", b"//x"], [b"*", b"http://x/", b"/a b", b"/\x80", b"/\x00", b"/\x7f", b""]),
    mostly([b"HTTP/1.1"], [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 "]),
    mostly([b"Host: x\r\n"], [b"", b"Host: x\r\nHost: y\r\n"]),
    lines,
    ends,
)
bodies = mostly([b""], [b"abc", b"abcd", b"3\r\nabc\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])


def events_of(data: bytes) -> list[Any]:
    """What h11 makes of `data`."""
    connection = h11.Connection(h11.SERVER)
    events: list[Any] = []
    connection.receive_data(data)
    while True:
        event = connection.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            assert connection.trailing_data == (b"", False)
            assert not connection.they_are_waiting_for_100_continue
            return events
        events.append(event)


def written_by_h11(status: int, given: list[tuple[bytes, bytes]]) -> bytes:
    """The same head as Hypercorn has h11 write it, to a plain request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.next_event()
    connection.next_event()
    written = connection.send(h11.Response(status_code=status, headers=build_and_validate_headers(given) + DATED))
    assert connection.our_state is h11.SEND_BODY
    assert written is not None
    return written


@settings(max_examples=1000, deadline=None)
@given(heads, bodies)
def test_a_request_that_is_plain_means_the_same_to_h11(head: bytes, body: bytes) -> None:
    request = plain.read(head + body)
    if request is None:
        return
    first, *data, last = events_of(head + body)
    assert request[:3] == (first.method.decode(), first.target, list(first.headers))
    assert request.body == b"".join(part.data for part in data)
    assert first.http_version == b"1.1"
    assert type(last) is h11.EndOfMessage


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([200, 201, 404, 503, 999]), headers, st.integers(0, 4))
def test_an_answer_that_is_plain_is_written_as_h11_writes_it(
    status: int, given: list[tuple[bytes, bytes]], place: int
) -> None:
    given = [*given[:place], (b"content-length", b"7"), *given[place:]]
    head = plain.answer(status, given, dated=DATED)
    if head is not None:
        assert head == (written_by_h11(status, given), 7)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /users/7?full=1 HTTP/1.1\r\nhost: x:80\r\nAccept: */*\r\nConnection: keep-alive\r\nX-Empty:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_what_clients_usually_send_is_plain(data: bytes) -> None:
    assert plain.read(data) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nG",
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"0" * 21 + b"2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_needs_a_decision_is_left_to_h11(data: bytes) -> None:
    assert plain.read(data) is None


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (200, []),
        (200, [(b"content-length", b"1"), (b"x", b"a\r\nset-cookie: evil")]),
        (200, [(b"content-length", b"1"), (b"x", b" padded")]),
        (200, [(b"content-length", b"1"), (b"x", b"padded ")]),
        (200, [(b"content-length", b"1"), (b"content-length", b"1")]),
        (200, [(b"content-length", b"1"), (b"connection", b"close")]),
        (200, [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]),
        (200, [(b"content-length", b"-1")]),
        (100, [(b"content-length", b"0")]),
        (204, [(b"content-length", b"0")]),
        (304, [(b"content-length", b"9")]),
    ],
)
def test_an_answer_that_is_framed_otherwise_is_left_to_h11(status: int, given: list[tuple[bytes, bytes]]) -> None:
    assert plain.answer(status, given, dated=DATED) is None


def test_no_head_takes_long_to_refuse() -> None:
    for evil in (b"a:" + b" " * 65_000 + b"\x00", b"a:b\r\n" * 13_000 + b"\x00", b"a" * 65_000, b"a:b \t" * 13_000):
        assert plain.read(b"GET / HTTP/1.1\r\nHost: x\r\n" + evil) is None
