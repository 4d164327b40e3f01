"""Replies are read right, however they are cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lab.http1 import BrokenReply, Reply, ReplyReader

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def read(*pieces: bytes, bodiless: bool = False) -> Reply | None:
    reader = ReplyReader(bodiless=bodiless)
    replies = [reader.feed(piece) for piece in pieces]
    assert not any(replies[:-1])
    return replies[-1]


@pytest.mark.parametrize(
    ("raw", "reply"),
    [(PLAIN, Reply(200, True, 5)), (CHUNKED, Reply(200, True, 15)), (EARLY, Reply(404, True, 0))],
    ids=["length", "chunked", "early hints"],
)
@given(data=st.data())
def test_a_reply_is_the_same_however_it_is_cut(raw: bytes, reply: Reply, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1))))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert read(*pieces) == reply


def test_one_connection_carries_one_reply_after_the_other() -> None:
    reader = ReplyReader()
    assert [reader.feed(raw) for raw in (CHUNKED, PLAIN, CHUNKED)] == [
        Reply(200, True, 15),
        Reply(200, True, 5),
        Reply(200, True, 15),
    ]


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0", False),
        (b"HTTP/1.1 200 OK\r\nconnection: x, Close\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0", True),
    ],
)
def test_a_connection_is_kept_as_its_reply_says(head: bytes, keeps_alive: bool) -> None:
    assert read(head + b"\r\n\r\n") == Reply(200, keeps_alive, 0)


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_whatever_the_headers_say(status: int) -> None:
    assert read(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status) == Reply(status, True, 0)


def test_a_reply_to_head_has_no_body() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", bodiless=True) == Reply(200, True, 0)


def test_chunked_counts_more_than_a_length() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert read(raw) == Reply(200, True, 3)


@pytest.mark.parametrize("header", [b"Server: x", b"Transfer-Encoding: gzip"])
def test_without_a_length_the_end_of_the_connection_ends_the_body(header: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\nhel") is None
    assert reader.feed(b"lo") is None
    assert reader.end() == Reply(200, False, 5)


@pytest.mark.parametrize("raw", [PLAIN[:-1], CHUNKED[:-1], PLAIN[:20], b""])
def test_a_reply_that_is_cut_short_is_none(raw: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(raw) is None
    assert reader.end() is None


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 099 X\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n",
        PLAIN + b"HTTP",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
    ],
)
def test_what_is_no_reply_is_refused(raw: bytes) -> None:
    with pytest.raises(BrokenReply):
        read(raw)
