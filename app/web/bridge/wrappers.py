"""Flask's request, response and streamed body, as the bridge wants them; on WSGI they are Flask's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import IO, Any, Protocol, cast

from asgiref.sync import async_to_sync
from flask import Request, Response
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.utils import cached_property

from app.web.bridge.inbox import InputStream
from app.web.bridge.switch import current_frame

# Where in the environ the bridge's exchange stands.
EXCHANGE = "flask_mesh.exchange"

ASGIHeaders = list[tuple[bytes, bytes]]


class Exchange(Protocol):
    """The bridge's side of one request, as far as a response needs it."""

    start_response: Any

    def answer(self, status: int, headers: ASGIHeaders, body: Any, response: AsyncResponse) -> None:
        """Take a whole answer: its `body` is bytes, an `AsyncBody`, or a plain iterator."""


class AsyncBody:
    """An async iterator as a response body; a WSGI server and Flask's test client may iterate over it too.

    Those have an event loop per call, which an async generator does not survive: for them it is gathered first.
    """

    def __init__(self, chunks: AsyncIterator[str | bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncBody:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        return chunk.encode() if isinstance(chunk, str) else chunk

    async def aclose(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    def __iter__(self) -> Iterator[bytes]:
        frame = current_frame()
        if frame is None:
            yield from async_to_sync(self._gather)()
            return
        while True:
            try:
                yield frame.wait(self.__anext__())
            except StopAsyncIteration:
                return

    def close(self) -> None:
        frame = current_frame()
        if frame is None:
            async_to_sync(self.aclose)()
        else:
            frame.wait(self.aclose())

    async def _gather(self) -> list[bytes]:
        return [chunk async for chunk in self]


class AsyncRequest(Request):
    """Flask's request, whose body is counted as it comes."""

    @cached_property
    def stream(self) -> IO[bytes]:
        """As Flask's; ``max_content_length`` holds even for a body whose length was not announced, or was a lie."""
        stream = self.environ["wsgi.input"]
        if not isinstance(stream, InputStream):
            return super().stream
        stream.limit = self.max_content_length
        if stream.limit is not None and (self.content_length or 0) > stream.limit:
            raise RequestEntityTooLarge
        return cast("IO[bytes]", stream)


class AsyncResponse(Response):
    """Flask's response, which hands itself to the bridge instead of being taken apart as WSGI."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        exchange: Exchange | None = environ.get(EXCHANGE)
        # A middleware that wants to see the headers has put a start_response of its own in the way.
        if exchange is None or start_response != exchange.start_response:
            return super().__call__(environ, start_response)
        body = self._body(environ)
        exchange.answer(self.status_code, self._asgi_headers(environ), body, self)
        return ()

    def wants_close(self) -> bool:
        """Whether `close` would do anything; for most responses it would not."""
        return not self.is_sequence or bool(self._on_close)

    def _asgi_headers(self, environ: Any) -> list[tuple[bytes, bytes]]:
        """`get_wsgi_headers`, encoded; most responses have nothing in them that it would change."""
        encoded = encode_headers(self.headers)
        names = {name for name, _ in encoded}
        if (
            self.status_code in (204, 304)
            or not names.isdisjoint((b"location", b"content-location"))
            or (b"content-length" not in names and self.is_sequence)
        ):
            return encode_headers(self.get_wsgi_headers(environ))
        return encoded

    def _body(self, environ: Any) -> Any:
        if environ["REQUEST_METHOD"] == "HEAD" or self.status_code in (204, 304):
            return b""
        if self.is_sequence:
            return b"".join(self.iter_encoded())
        if isinstance(self.response, AsyncBody):
            return self.response
        return iter(self.get_app_iter(environ))


def encode_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
