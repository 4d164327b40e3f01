"""What a transport is: it sends one request to one peer, once, and hands over a reply whose head is here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from app.errors import BadReply
from app.mesh.registry.record import Instance

Headers = dict[str, str] | list[tuple[str, str]]


class Oversized(BadReply):
    """Longer than we take: our own limit, and no fault of the peer's."""


class Body:
    """A request body that comes piece by piece; knows whether it was begun, and what its source failed with."""

    __slots__ = ("_source", "begun", "error")

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.begun = False
        self.error: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.begun = True
        try:
            return await self._source.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:
            # aiohttp would report it as a broken connection; it is the sender who failed, and who must hear it.
            self.error = error
            raise


class Request(NamedTuple):
    """What to send to whom. `path` starts with a slash and may carry a query; header names are lower-case."""

    peer: Instance
    method: str
    path: str
    headers: Headers
    content: bytes | Body | None


class Exchange(Protocol):
    """A reply whose head is here. End it by `read` or by `close`; a connection is kept if its body was read."""

    status: int

    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """In order, with duplicates, in the case in which they came."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By name in any case; of duplicates the first."""
        ...

    def at_hand(self, *, max_bytes: int) -> bytes | None:
        """As `read`, if all of it has come with the head; else None, and it is still to be read."""
        ...

    async def read(self, *, max_bytes: int) -> bytes:
        """The whole body, decoded. Raises: BadReply (undecodable), Oversized, PeerUnreachable."""
        ...

    def chunks(self, *, idle_seconds: float) -> AsyncIterator[bytes]:
        """The body as it comes, not decoded. Raises: PeerUnreachable, DeadlineExceeded (silence for too long)."""
        ...

    def close(self) -> None: ...


class Transport(Protocol):
    """Sends one request to one peer, once."""

    async def send(self, request: Request, /) -> Exchange:
        """Return when the reply's head has come; the caller bounds the time.

        Raises:
            PeerUnreachable: ``sent`` tells whether the peer may have seen the request.
            BadReply: what came back is not HTTP.
        """
        ...
