"""HTTP/1.1 on a connection: a short way for what is plain, and Hypercorn's own way, through h11, for all else.

    data ── plain, nothing under way ──► _Exchange ── its answer is plain too ──► written
       │                                     └─ it is not: h11 reads the request after all ─┐
       └─ anything else ──► Hypercorn's H11Protocol and HTTPStream ◄────────────────────────┘

h11 and the events between Hypercorn's layers are half the CPU of a small request. Nothing here decides what h11 would
decide otherwise: bodies in pieces, pipelining, ``Expect``, upgrades, HTTP/1.0, malformed heads, slow heads, answers
without a length and errors before an answer go Hypercorn's way, each as if the short one did not exist.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import unquote

import h11
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.utils import UnexpectedMessageError

from app.web.serving import plain

_BUSY, _IDLE = Updated(idle=False), Updated(idle=True)
_ASGI = {"spec_version": "2.1", "version": "3.0"}


class Http1(H11Protocol):
    """Hypercorn's protocol, with the short way."""

    _exchange: _Exchange | None = None
    _ended = False

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._take_in(event)
        elif self._exchange is not None:
            self._exchange.leave()
        else:
            await super().handle(event)

    async def _take_in(self, event: RawData) -> None:
        if self._exchange is not None and not event.data:
            return  # the client sends no more; that it has gone is told next
        while self._exchange is not None:
            # Its next request is here before it has its answer: as with h11, nothing more is read till then.
            await self.can_read.clear()
            await self.can_read.wait()
        if self._ended:
            return
        request = plain.read(event.data) if self._is_between_requests() else None
        if request is None:
            await super().handle(event)
            return
        await self.send(_BUSY)
        self.keep_alive_requests += 1
        self._exchange = _Exchange(self, request, event.data)
        self.task_group.spawn(self._exchange.run)

    def _is_between_requests(self) -> bool:
        connection = self.connection
        return (
            self.stream is None
            and connection.our_state is h11.IDLE
            and connection.their_state is h11.IDLE
            and not connection.trailing_data[0]
            and self.keep_alive_requests + 1 < self.config.keep_alive_max_requests
        )

    async def end(self, *, whole: bool) -> None:
        """The exchange has ended; the connection is kept, if its answer was `whole`."""
        self._exchange = None
        self._ended = not whole or self.context.terminated.is_set()
        await self.can_read.set()
        await self.send(Closed() if self._ended else _IDLE)

    def long_way(self, exchange: _Exchange) -> HTTPStream:
        """Let h11 and Hypercorn take over `exchange`, of whose answer nothing has been sent."""
        self.connection.receive_data(exchange.data)
        while self.connection.their_state is not h11.DONE:
            self.connection.next_event()
        stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        stream.scope, stream.start_time, stream.app_put = exchange.scope, time.time(), exchange.put
        stream.closed = exchange.has_gone
        self.stream, self._exchange = stream, None
        return stream


class _Exchange:
    """A plain request, and its answer as long as that is plain."""

    __slots__ = ("_body", "_bytes_to_come", "_done", "_gone", "_protocol", "_stream", "data", "scope")

    def __init__(self, protocol: Http1, request: plain.Request, data: bytes) -> None:
        method, target, headers, body = request
        path, _, query_string = target.partition(b"?")
        self._protocol, self.data = protocol, data
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._stream: HTTPStream | None = None
        # What is to come of the answer's body; None until the head has been sent.
        self._bytes_to_come: int | None = None
        self._done = False
        self.scope: Any = {
            "type": "http",
            "http_version": "1.1",
            "asgi": _ASGI.copy(),
            "method": method,
            "scheme": "https" if protocol.ssl else "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query_string,
            "root_path": protocol.config.root_path,
            "headers": headers,
            "client": protocol.client,
            "server": protocol.server,
            "state": protocol.connection_state.copy(),
            "extensions": {},
        }

    @property
    def has_gone(self) -> bool:
        """Whether the client has gone."""
        return self._gone.is_set()

    def leave(self) -> None:
        """The client has gone, or has all of its answer: the application hears the same of both."""
        self._gone.set()

    async def put(self, message: Any) -> None:
        """What Hypercorn's stream, once it has taken over, tells the application: the request was whole, so only this."""
        self._gone.set()

    async def run(self) -> None:
        """The application's task."""
        protocol = self._protocol
        try:
            await protocol.app(self.scope, self._receive, self._send, _for_wsgi, _for_wsgi)
        except Exception:  # noqa: BLE001  # as Hypercorn: the application's failure ends its connection and no more
            await protocol.config.log.exception("Error in ASGI Framework")
        finally:
            await self._finish()

    async def _receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if self._stream is not None:
            await self._stream.app_send(message)
        elif kind == "http.response.start" and self._bytes_to_come is None:
            await self._start(message)
        elif kind == "http.response.body" and self._bytes_to_come is not None and not self._done:
            await self._continue(bytes(message.get("body", b"")), more=message.get("more_body", False))
        else:
            raise UnexpectedMessageError(self._state, kind)

    async def _start(self, message: Any) -> None:
        protocol = self._protocol
        dated = protocol.config.response_headers("h11")
        head = None
        if not message.get("trailers", False):
            head = plain.answer(int(message["status"]), message.get("headers", ()), dated=dated)
        if head is None:
            self._stream = protocol.long_way(self)
            await self._stream.app_send(message)
            return
        self._bytes_to_come = head.body_bytes
        await protocol.send(RawData(head.data))

    async def _continue(self, body: bytes, *, more: bool) -> None:
        left = self._bytes_to_come = (self._bytes_to_come or 0) - len(body)
        if left < 0:
            raise h11.LocalProtocolError("Too much data for declared Content-Length")
        if body:
            await self._protocol.send(RawData(body))
        if more:
            return
        if left:
            raise h11.LocalProtocolError("Too little data for declared Content-Length")
        self._done = True
        self._gone.set()
        await self._protocol.end(whole=True)

    async def _finish(self) -> None:
        """The application has returned, or failed."""
        if self._done or self._gone.is_set():
            return
        if self._stream is None and self._bytes_to_come is None:
            self._stream = self._protocol.long_way(self)  # which answers 500
        if self._stream is not None:
            await self._stream.app_send(None)
            return
        self._gone.set()
        await self._protocol.end(whole=False)

    @property
    def _state(self) -> ASGIHTTPState:
        if self._done:
            return ASGIHTTPState.CLOSED
        return ASGIHTTPState.REQUEST if self._bytes_to_come is None else ASGIHTTPState.RESPONSE


def _for_wsgi(*args: Any) -> Any:
    raise RuntimeError("This server calls ASGI applications only")
