"""Undoes the coding of a reply's body, never beyond the longest length."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import BadReply
from app.mesh.calling.exchange import Oversized


def decoded(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """`body` without its gzip or deflate coding.

    Raises:
        BadReply: another coding, or broken.
        Oversized: longer than `max_bytes` once unpacked.
    """
    encoding = encoding.strip().lower()
    if encoding == "identity" or not body:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise BadReply(f"A peer replied in a coding that was not asked for: {encoding[:40]}")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    with _as_bad_reply():
        plain = unpacker.decompress(body, max_bytes + 1)
    if len(plain) > max_bytes:
        raise Oversized(f"A peer's reply unpacks to more than {max_bytes} bytes")
    if not unpacker.eof:
        raise BadReply("A peer's packed reply ends too early")
    return plain


@contextmanager
def _as_bad_reply() -> Iterator[None]:
    try:
        yield
    except zlib.error as error:
        raise BadReply("A peer's packed reply is broken") from error
