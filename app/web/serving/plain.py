"""Plain HTTP/1.1 on the wire: requests and answers that leave nothing to decide. Pure; all else is left to h11.

A part of RFC 9112, and smaller than h11's: what is read or written here, h11 would read or write in the same way, and
random messages are held against it in the tests. To see that a message is plain takes a tenth of h11's time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
# Origin form only, and no method that changes how an answer is framed (HEAD, CONNECT). What repeats is possessive: no
# input makes a match go back into a name or a value and try again.
_HEAD = re.compile(
    rb"(GET|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-~]*+) HTTP/1\.1\r\n((?:" + _TOKEN + rb":[\t -~\x80-\xff]*+\r\n)+)\r\n"
)
# Those that change how a message is framed, or what becomes of the connection.
_UNUSUAL = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
# A host has no business in an answer; h11 would write it first.
_UNUSUAL_IN_ANSWERS = _UNUSUAL | {b"host"}

_LINE = re.compile(_TOKEN + rb": (?:[!-~\x80-\xff][\t -~\x80-\xff]*+(?<![\t ]))?\r\n")
# Without a body, whatever their headers say.
_BODILESS = frozenset({204, 304})


class Request(NamedTuple):
    """A whole request. `headers` have names in lower case."""

    method: str
    target: bytes
    headers: Headers
    body: bytes


class Head(NamedTuple):
    """The head of an answer as it goes on the wire, and how long the body is."""

    data: bytes
    body_bytes: int


def read(data: bytes) -> Request | None:
    """The request that `data` is, all of it and nothing else; None if it is not that, or not plain."""
    head = _HEAD.match(data)
    if head is None:
        return None
    method, target, lines = head.groups()
    headers = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip()))
    body = data[head.end() :]
    return Request(method.decode(), target, headers, body) if _is_plain(headers, len(body)) else None


def _is_plain(headers: Headers, body_bytes: int) -> bool:
    """Whether there is one host, and the length says that the request ends where the data does."""
    hosts, length = 0, None
    for pair in headers:
        name = pair[0]
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            if length is not None or not pair[1].isdigit():
                return False
            length = pair[1]
        elif name in _UNUSUAL and not (name == b"connection" and pair[1].lower() == b"keep-alive"):
            return False
    return hosts == 1 and body_bytes == (0 if length is None else _bytes(length))


def answer(status: int, headers: Iterable[tuple[bytes, bytes]], *, dated: Headers) -> Head | None:
    """The head of an answer to a plain request; None if it is not plain: without a length, say, or not valid.

    Args:
        dated: headers of the server's own, which are valid.
    """
    if not 200 <= status <= 999 or status in _BODILESS:
        return None
    length: int | None = None
    parts = [b"HTTP/1.1 %d \r\n" % status]
    for name, value in headers:
        line = b"%b: %b\r\n" % (name, value)
        if _LINE.fullmatch(line) is None:
            return None
        lower = name.lower()
        if lower == b"content-length":
            if length is not None or not value.isdigit():
                return None
            length = _bytes(value)
        elif lower in _UNUSUAL_IN_ANSWERS:
            return None
        parts.append(line)
    if length is None:
        return None
    parts += [b"%b: %b\r\n" % pair for pair in dated]
    parts.append(b"\r\n")
    return Head(b"".join(parts), length)


def _bytes(digits: bytes) -> int:
    # As many digits as h11 takes: Python refuses to read thousands of them.
    return int(digits) if len(digits) <= 20 else -1
