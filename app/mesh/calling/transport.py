"""One HTTP exchange with one peer: the only module of the mesh that knows aiohttp; its errors end here."""

from __future__ import annotations

import re
import socket
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from app.deadline import Deadlines
from app.errors import BadInput, BadReply, DeadlineExceeded, MeshError, PeerUnreachable
from app.mesh.registry.record import Instance, Network, allowed
from app.settings import ClientSettings

# A bit below the server's 75 s, so that it is we who close an idle connection, not the peer under a request.
KEEPALIVE_SECONDS = 60.0
_DNS_SECONDS = 10
_CHUNK_BYTES = 65_536

# A path that can go on the wire as it is; any other is percent-encoded first.
_WIRE_PATH = re.compile(r"/[!-~]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_CONTENT_TYPE: CIMultiDict[None] = CIMultiDict({"Content-Type": None})

Headers = dict[str, str] | list[tuple[str, str]]


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

    async def read(self, *, max_bytes: int) -> bytes:
        """The whole body, decoded. Raises: BadReply (too long, undecodable), PeerUnreachable."""
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


class GuardedResolver(AbstractResolver):
    """Resolves names, and only to addresses in `networks`: what is checked is what is connected to."""

    def __init__(self, networks: Sequence[Network], *, resolver: AbstractResolver | None = None) -> None:
        self._networks = tuple(networks)
        self._resolver = resolver or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises: OSError: the name resolves to nothing that is allowed."""
        found = await self._resolver.resolve(host, port, family)
        kept = [result for result in found if allowed(ip_address(result["host"].split("%")[0]), self._networks)]
        if not kept:
            raise OSError(None, f"{host} resolves to no address in the allowed networks")
        return kept

    async def close(self) -> None:
        await self._resolver.close()


class _BareRequest(aiohttp.ClientRequest):
    """A request with the headers that it was given and no others: what is passed through must arrive as it came.

    The session's `skip_auto_headers` means the same, and copies and sorts headers for each request to get there.
    """

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        self._skip_auto_headers = _NO_CONTENT_TYPE


class AiohttpTransport:
    """Kept-alive connections to peers over aiohttp. Use as an async context manager.

    No redirects, cookies, proxies of the environment or automatic decompression: a peer's reply is what it sent.
    """

    def __init__(self, settings: ClientSettings, *, networks: Sequence[Network], deadlines: Deadlines) -> None:
        self._settings = settings
        self._networks, self._deadlines = tuple(networks), deadlines
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<AiohttpTransport {'open' if self._session is not None else 'closed'}>"

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=self._settings.max_connections_per_peer,
            keepalive_timeout=KEEPALIVE_SECONDS,
            ttl_dns_cache=_DNS_SECONDS,
            resolver=GuardedResolver(self._networks),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # The whole time is bounded by who calls; what remains is the one wait that proves "unsent".
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout_seconds),
            auto_decompress=False,
            trust_env=False,
            request_class=_BareRequest,
        )
        # Its hidden repeat of idempotent requests would count in no budget and blur what was sent.
        self._session._retry_connection = False  # noqa: SLF001  # there is no public switch
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, request: Request) -> Exchange:
        if self._session is None:
            raise PeerUnreachable("The mesh is closed", sent=False)
        peer, method, path, headers, content = request
        try:
            response = await self._session.request(
                method,
                wire_url(peer.url, path),
                headers=headers if type(headers) is dict else CIMultiDict(headers),
                data=content,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(content, Body) and content.error is not None:
                raise content.error from None
            raise translated(error, peer) from error
        return _AiohttpExchange(response, peer, self._deadlines)


def wire_url(base: str, path: str) -> URL:
    """The address of `path` at `base`; a path that is already fit for the wire keeps its own encoding.

    Raises:
        BadInput: it does not start with a slash, and would run into the host's name; or it has control characters.
    """
    if _WIRE_PATH.fullmatch(path):
        return URL(base + path, encoded=True)
    if not path.startswith("/") or _CONTROL.search(path):
        raise BadInput("The path of a call to a peer must start with a slash and have no control characters")
    return URL(base + path)


class _AiohttpExchange:
    __slots__ = ("_deadlines", "_peer", "_response", "status")

    def __init__(self, response: aiohttp.ClientResponse, peer: Instance, deadlines: Deadlines) -> None:
        self._response, self._peer, self._deadlines = response, peer, deadlines
        self.status = response.status

    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]:
        return self._response.raw_headers

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self, *, max_bytes: int) -> bytes:
        response = self._response
        length = response.content_length
        try:
            if length is not None and (length <= max_bytes or response.method == "HEAD"):
                body = await response.read()
            else:
                body = await self._read_capped(length or 0, max_bytes)
        except (aiohttp.ClientError, OSError) as error:
            raise translated(error, self._peer) from error
        finally:
            self.close()
        encoding = response.headers.get("content-encoding")
        return body if encoding is None else decoded(body, encoding, max_bytes=max_bytes)

    async def _read_capped(self, total: int, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        while total <= max_bytes:
            part = await self._response.content.readany()
            if not part:
                return b"".join(parts)
            total += len(part)
            parts.append(part)
        raise BadReply(f"{self._peer.service}: the reply is longer than {max_bytes} bytes")

    async def chunks(self, *, idle_seconds: float) -> AsyncIterator[bytes]:
        content = self._response.content
        while True:
            try:
                with self._deadlines.within(idle_seconds):
                    part = await content.readany()
            except TimeoutError as error:
                raise DeadlineExceeded(f"{self._peer.service}: the reply stood still for {idle_seconds:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                raise translated(error, self._peer) from error
            if not part:
                return
            yield part

    def close(self) -> None:
        # At the end of its body aiohttp has given the connection back already.
        if not self._response.content.at_eof():
            self._response.close()


def translated(error: Exception, peer: Instance) -> MeshError:
    """aiohttp's error as ours. Unsent is only what failed before a connection stood."""
    who = f"{peer.service}, instance {peer.id}"
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return PeerUnreachable(f"{who}: no connection", sent=False)
    if isinstance(error, aiohttp.ClientResponseError):
        return BadReply(f"{who}: the reply is not valid HTTP")
    return PeerUnreachable(f"{who}: the connection was cut", sent=True)


def decoded(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """`body` without its gzip or deflate coding.

    Raises:
        BadReply: another coding, broken, or longer than `max_bytes` once unpacked.
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
        raise BadReply(f"A peer's reply unpacks to more than {max_bytes} bytes")
    if not unpacker.eof:
        raise BadReply("A peer's packed reply ends too early")
    return plain


@contextmanager
def _as_bad_reply() -> Iterator[None]:
    try:
        yield
    except zlib.error as error:
        raise BadReply("A peer's packed reply is broken") from error
