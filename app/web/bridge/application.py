"""Flask natively on ASGI: Flask's own ``wsgi_app``, unmodified, in a greenlet on the event loop.

One request through ``ASGIBridge``:

    scope ─► environ ─► greenlet: Flask.wsgi_app ── plain view ──► worker thread (same context)
                              │   └─ async view, hook, handler: stepped in the greenlet, awaited by the task
                              ▼
               AsyncResponse hands itself over (status, headers, body), the contexts are popped
                              ▼
               the task sends the answer, closes the body, runs call_on_close

Every hook, signal, error handler, session, teardown and extension behaves as in Flask, because it is Flask. A WSGI
middleware around ``app.wsgi_app``, or a response class of somebody else's, takes the plain WSGI way out.
"""

from __future__ import annotations

import asyncio
import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from itertools import chain, islice
from typing import Any, cast

import flask
from asgiref.sync import async_to_sync
from flask import Flask, Request, Response
from flask.ctx import AppContext, RequestContext
from flask.globals import _cv_app, _cv_request, request_ctx
from flask.typing import ResponseReturnValue
from flask.views import MethodView
from werkzeug.routing import MapAdapter

from app.web.bridge import environ as wsgi
from app.web.bridge.answer import send_whole
from app.web.bridge.inbox import Inbox, InputStream
from app.web.bridge.json import OrjsonProvider
from app.web.bridge.lifespan import Lifespan
from app.web.bridge.switch import NoBridge, await_, current_frame, drive, in_thread
from app.web.bridge.wrappers import EXCHANGE, AsyncBody, AsyncRequest, AsyncResponse, encode_headers

__all__ = ["ASGIBridge", "AsyncBody", "AsyncFlask", "AsyncResponse", "NoBridge", "await_", "stream_with_context"]

WORKER_THREADS = 16

_END = object()


class AsyncFlask(Flask):
    """A Flask application whose async code runs on the event loop that serves it.

    ``asgi_app`` is its ASGI application. ``before_serving``, ``after_serving`` and ``while_serving`` register
    start-up and shut-down functions. Flask's test client and ``flask run`` work as ever.

    Args:
        import_name: as Flask's.
        worker_threads: how many plain ``def`` views may run at once; more wait for a free thread.
    """

    request_class = AsyncRequest
    response_class = AsyncResponse
    json_provider_class = OrjsonProvider

    def __init__(self, import_name: str, *args: Any, worker_threads: int = WORKER_THREADS, **kwargs: Any) -> None:
        super().__init__(import_name, *args, **kwargs)
        self.lifespan = Lifespan()
        self.before_serving = self.lifespan.before_serving
        self.after_serving = self.lifespan.after_serving
        self.while_serving = self.lifespan.while_serving
        # Threads start when they are needed: an application of async views alone has none.
        self.thread_pool = ThreadPoolExecutor(worker_threads, thread_name_prefix=f"{self.name}-view")
        self._on_loop: dict[tuple[Any, str], bool] = {}

    @property
    def asgi_app(self) -> ASGIBridge:
        return ASGIBridge(self)

    def async_to_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """On the bridge: await on the serving loop. Elsewhere (test client, ``flask run``): as Flask does."""

        def synchronous(*args: Any, **kwargs: Any) -> Any:
            frame = current_frame()
            if frame is None:
                return async_to_sync(func)(*args, **kwargs)
            return frame.wait(func(*args, **kwargs))

        return synchronous

    def dispatch_request(self) -> ResponseReturnValue:
        """Flask's dispatch; on the bridge, a plain view runs on a worker thread."""
        frame = current_frame()
        if frame is None:
            return cast(ResponseReturnValue, _settle(super().dispatch_request()))
        request = request_ctx.request
        if request.url_rule is None or self._runs_on_loop(request):
            result: Any = super().dispatch_request()
        else:
            result = frame.wait(in_thread(self.thread_pool, super().dispatch_request))
        # A decorator that does not know async hands on the coroutine of the view that it wraps.
        return cast(ResponseReturnValue, frame.wait(result) if hasattr(result, "__await__") else result)

    def make_response(self, rv: Any) -> Response:
        """Flask's, and async iterators are bodies too."""
        body = rv[0] if isinstance(rv, tuple) and rv else rv
        if hasattr(body, "__anext__"):
            streamed = self.response_class(cast(Any, AsyncBody(body)))
            rv = (streamed, *rv[1:]) if isinstance(rv, tuple) else streamed
        response: Response = super().make_response(rv)
        if hasattr(response.response, "__anext__") and not isinstance(response.response, AsyncBody):
            response.response = cast(Any, AsyncBody(cast(Any, response.response)))
        return response

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Flask's result without the detours that only host and subdomain matching need: in half the time."""
        url_map = self.url_map
        if request is None or url_map.host_matching or self.subdomain_matching or self.config["SERVER_NAME"]:
            return super().create_url_adapter(request)
        if (trusted_hosts := self.config["TRUSTED_HOSTS"]) is not None:
            request.trusted_hosts = trusted_hosts
        return MapAdapter(
            url_map,
            request.host.lower(),
            request.root_path or "/",
            url_map.default_subdomain or "",
            request.scheme,
            request.path,
            request.method,
            request.query_string.decode("utf-8", "replace"),
        )

    def _runs_on_loop(self, request: Request) -> bool:
        rule = request.url_rule
        view = self.view_functions[rule.endpoint] if rule is not None else None
        try:
            return self._on_loop[view, request.method]
        except KeyError:
            answer = self._on_loop[view, request.method] = _is_async(view, request.method)
            return answer


def stream_with_context(source: Any) -> Any:
    """Flask's, and for async iterators too: keep the request's context while the body is made."""
    if not isinstance(source, AsyncIterator):
        return flask.stream_with_context(source)
    return _stream_in(_cv_app.get(), _cv_request.get(), source)


async def _stream_in(app: AppContext, request: RequestContext, source: AsyncIterator[Any]) -> AsyncIterator[Any]:
    with app, request:
        async for chunk in source:
            yield chunk


class ASGIBridge:
    """The ASGI 3 application of a Flask application.

    Args:
        app: a Flask application; an `AsyncFlask` in all but exotic cases, since it is what awaits.
    """

    def __init__(self, app: AsyncFlask) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await _Exchange(self.app, scope, receive, send).serve()
        elif scope["type"] == "lifespan":
            await self.app.lifespan.serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, receive, send)
        else:
            raise ValueError(f"Unknown ASGI scope type {scope['type']!r}")


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_app", "_body", "_close", "_headers", "_inbox", "_scope", "_send", "_status")

    def __init__(self, app: AsyncFlask, scope: Any, receive: Any, send: Any) -> None:
        self._app = app
        self._scope = scope
        self._send = send
        self._inbox = Inbox(receive, has_body=wsgi.has_body(scope))
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: Any = b""
        self._close: AsyncResponse | Any = None

    async def serve(self) -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._inbox.watch(task.get_loop(), task.cancel)
        try:
            await drive(self._run_flask)
            await self._send_answer()
        except asyncio.CancelledError:
            # The client's going away is the one cancellation that was ours, and it ends here.
            if not self._inbox.disconnected or task.uncancel() > 0:
                raise
        finally:
            self._inbox.close()
            await self._close_body()

    def _run_flask(self) -> None:
        stream = InputStream(self._inbox) if self._inbox.unread else io.BytesIO()
        environ = wsgi.build(self._scope, stream)
        environ[EXCHANGE] = self
        body = self._app(environ, self.start_response)
        if self._close is None:
            self._take_wsgi(body)

    def _take_wsgi(self, body: Any) -> None:
        """An answer as plain WSGI; a middleware that is a generator calls `start_response` with its first chunk."""
        chunks = iter(body)
        first = [] if self._status else list(islice(chunks, 1))
        if self._close is not None:
            return  # inside that generator an AsyncResponse has handed itself over
        if not self._status:
            raise RuntimeError("The application ended without a response")
        self._body, self._close = chain(first, chunks), body

    # How an answer arrives: whole from an AsyncResponse, or piecemeal as WSGI from anything else.

    def answer(self, status: int, headers: Any, body: Any, response: AsyncResponse) -> None:
        if status < 200:
            response.close()
            raise ValueError(f"{status} is not the status of a final response")
        self._status = status
        self._headers = headers
        self._body = body
        self._close = response

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], Any]:
        self._status = int(status.split(" ", 1)[0])
        self._headers = encode_headers(headers)
        return _no_write

    # How it leaves.

    async def _send_answer(self) -> None:
        send, body = self._send, self._body
        start = {"type": "http.response.start", "status": self._status, "headers": self._headers}
        if type(body) is bytes:
            await send_whole(send, self._inbox, start, body, self._scope["http_version"])
            return
        await send(start)
        async for chunk in self._chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            # A body that never waits must not keep the loop from others, nor from hearing of a disconnect.
            await asyncio.sleep(0)
        self._inbox.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[bytes]:
        if isinstance(self._body, AsyncBody):
            async for chunk in self._body:
                yield chunk
            return
        while True:
            # The next chunk of a plain iterator may block: a file, a query, a sleep.
            chunk = await in_thread(self._app.thread_pool, next, self._body, _END)
            if chunk is _END:
                return
            yield chunk

    async def _close_body(self) -> None:
        closing = self._close
        if isinstance(closing, AsyncResponse) and not closing.wants_close():
            return
        close = getattr(closing, "close", None)
        if close is None:
            return
        if type(self._body) is bytes or isinstance(self._body, AsyncBody):
            await drive(close)
        else:
            await in_thread(self._app.thread_pool, close)


async def _refuse_websocket(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1003})  # before the handshake: the server answers 403
        return
    body = b'{"type":"about:blank","title":"Not Implemented","status":501,"detail":"WebSockets are not served here"}'
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    status = HTTPStatus.NOT_IMPLEMENTED.value
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _is_async(view: Any, method: str) -> bool:
    """Whether `view` does its waiting on the loop; decorators are looked through, as far as they use ``wraps``."""
    view_class = getattr(view, "view_class", None)
    if view_class is not None:
        view = view_class.dispatch_request
        if issubclass(view_class, MethodView):
            view = getattr(view_class, method.lower(), None) or getattr(view_class, "get", None)
    function = inspect.unwrap(view) if view is not None else None
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _settle(result: Any) -> Any:
    return async_to_sync(_identity)(result) if hasattr(result, "__await__") else result


async def _identity(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _no_write(data: bytes) -> None:
    raise RuntimeError("The write callable of WSGI is not supported: return the body")
