"""Replies of HTTP/1.1, read as they come (RFC 9112): no I/O, one reply at a time, as a client without pipelining has it.

HEAD ─┬─ 1xx ─────────────────────────────► HEAD
      ├─ 204, 304, reply to HEAD ──────────► done
      ├─ Transfer-Encoding: chunked ─► SIZE ⇄ DATA … TRAILERS ─► done
      ├─ Content-Length ─────────────► FIXED ─► done
      └─ neither ────────────────────► UNTIL_CLOSE ─(end of the connection)─► done
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

MAX_HEAD_BYTES = 65_536
MAX_CHUNK_LINE_BYTES = 4096

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class BrokenReply(ValueError):
    """What came is not a reply of HTTP/1.1."""


class Reply(NamedTuple):
    """A whole reply.

    Args:
        keeps_alive: whether the connection may carry another request.
        body_bytes: the length of the body without its framing.
    """

    status: int
    keeps_alive: bool
    body_bytes: int


class Head(NamedTuple):
    """What of a reply's head decides how its body is read; `length` is None where none is given."""

    status: int
    keeps_alive: bool
    chunked: bool
    length: int | None


class State(Enum):
    HEAD = auto()
    FIXED = auto()
    SIZE = auto()
    DATA = auto()
    TRAILERS = auto()
    UNTIL_CLOSE = auto()


def parse_head(raw: bytes) -> Head:
    """Read a head, without the empty line that ends it.

    Raises:
        BrokenReply: malformed, or its framing contradicts itself.
    """
    lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise BrokenReply("no status line")
    seen: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise BrokenReply("malformed header")
        lower = name.lower()
        if lower in _FRAMING:
            value = value.strip().lower()
            seen[lower] = seen[lower] + b"," + value if lower in seen else value
    encoding, connection = seen.get(b"transfer-encoding"), seen.get(b"connection", b"")
    chunked = encoding is not None and encoding.rpartition(b",")[2].strip() == b"chunked"
    # Another encoding than chunked at the end means: until the connection closes, whatever the length says.
    length = _length(seen[b"content-length"]) if b"content-length" in seen and encoding is None else None
    return Head(int(match[2]), _keeps_alive(match[1], connection), chunked, length)


def _length(value: bytes) -> int:
    # The same length twice is one length (RFC 9110, 8.6).
    values = {part.strip() for part in value.split(b",")}
    if len(values) != 1 or not _DIGITS.fullmatch(number := values.pop()):
        raise BrokenReply("malformed Content-Length")
    return int(number)


def _keeps_alive(minor: bytes, connection: bytes) -> bool:
    options = {option.strip() for option in connection.split(b",")}
    return b"close" not in options and (minor == b"1" or b"keep-alive" in options)


class ReplyReader:
    """Reads the replies of one connection.

    Args:
        bodiless: the requests are HEAD, whose replies have no body whatever their headers say.
    """

    __slots__ = ("_bodiless", "_body_bytes", "_buffer", "_head", "_left", "_state")

    def __init__(self, *, bodiless: bool = False) -> None:
        self._bodiless = bodiless
        self._buffer = bytearray()
        self._state = State.HEAD
        self._head = Head(0, False, False, None)
        self._left = 0
        self._body_bytes = 0

    def feed(self, data: bytes) -> Reply | None:
        """Take what has arrived; the reply, once it is whole.

        Raises:
            BrokenReply: this, or more than one reply, is not what was asked for.
        """
        self._buffer += data
        while True:
            step = self._step()
            if isinstance(step, Reply):
                if self._buffer:
                    raise BrokenReply("more came than was asked for")
                return step
            if not step:
                return None

    def end(self) -> Reply | None:
        """The connection has ended: the reply that its end completes, if there is one."""
        return self._done() if self._state is State.UNTIL_CLOSE else None

    def _step(self) -> Reply | bool:
        """A whole reply; else whether there is more to do with what is buffered."""
        state = self._state
        if state is State.HEAD:
            return self._read_head()
        if state is State.FIXED or state is State.DATA:
            return self._read_data()
        if state is State.SIZE:
            return self._read_size()
        if state is State.TRAILERS:
            return self._read_trailer()
        self._skip(len(self._buffer))
        return False

    def _read_head(self) -> Reply | bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BrokenReply("endless head")
            return False
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if head.status < 200:
            if head.status == 101:
                raise BrokenReply("nobody asked to switch protocols")
            return True
        self._head, self._body_bytes = head, 0
        if self._bodiless or head.status in (204, 304):
            return self._done()
        return self._begin_body(head)

    def _begin_body(self, head: Head) -> Reply | bool:
        if head.chunked:
            self._state = State.SIZE
        elif head.length is None:
            self._state = State.UNTIL_CLOSE
        else:
            self._state, self._left = State.FIXED, head.length
        return True

    def _read_data(self) -> Reply | bool:
        self._left -= self._skip(min(self._left, len(self._buffer)))
        if self._left:
            return False
        if self._state is State.FIXED:
            return self._done()
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise BrokenReply("a chunk is longer than it says")
        del self._buffer[:2]
        self._state = State.SIZE
        return True

    def _read_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BrokenReply("malformed chunk size")
        self._left = int(match[1], 16)
        self._state = State.DATA if self._left else State.TRAILERS
        return True

    def _read_trailer(self) -> Reply | bool:
        line = self._line()
        if line is None:
            return False
        return self._done() if not line else True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > MAX_CHUNK_LINE_BYTES:
                raise BrokenReply("endless line in a chunked body")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _skip(self, count: int) -> int:
        del self._buffer[:count]
        self._body_bytes += count
        return count

    def _done(self) -> Reply:
        # What only the connection's end delimits leaves no connection for another request.
        keeps_alive = self._head.keeps_alive and self._state is not State.UNTIL_CLOSE
        self._state = State.HEAD
        return Reply(self._head.status, keeps_alive, self._body_bytes)
