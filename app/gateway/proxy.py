"""The edge itself: an ASGI application that hands each request to the service that announced its path.

    own path? ── yes ──► the gateway's Flask app
       │ no
    target ─► route ─► guard ─► headers inward ─► mesh.stream ─► headers outward ─► chunks, each as it comes
       │         │       │                    │
      400       404    401, 403   502, 503, 504 as problems, before the first byte;
                                  after it, the client's connection ends, so that half an answer never looks whole

Nothing is retried here, and nothing is held but a small request body: that much the mesh needs to try another peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from werkzeug.exceptions import ClientDisconnected

from app import telemetry
from app.errors import NotFound, PlatformError, Unavailable
from app.gateway import headers, target
from app.gateway.guard import EdgeGuard
from app.gateway.headers import Client, Network
from app.gateway.target import Target
from app.gateway.upload import Upload
from app.mesh import Mesh
from app.web import problems
from app.web.bridge import environ
from app.web.bridge.inbox import Inbox

_log = telemetry.log("gateway")

OWN_PATHS = frozenset({"/", "/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json", "/docs", "/_mesh"})
_OWN_FOLDER = "/docs/"

# Of an upload that was answered before its end, this much is still taken in: a client that is cut off while it
# sends sees a reset connection instead of the answer.
_LINGER_BYTES, _LINGER_SECONDS = 8 * 1024 * 1024, 2.0


class Edge:
    """The public edge.

    Args:
        inner: the gateway's own application, for its own paths and for all that is not HTTP.
        mesh: knows the routes and reaches the services.
        guard: what the edge itself asks of whoever comes in.
        max_body_bytes: a longer request body is answered with 413.
        timeout_seconds: until a service's answer begins, uploads included, and then for each silence of its body.
        trusted_proxies: networks whose X-Forwarded-* headers are believed.
    """

    def __init__(
        self,
        inner: Any,
        mesh: Mesh,
        *,
        guard: EdgeGuard,
        max_body_bytes: int,
        timeout_seconds: float,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self.inner = inner
        self.mesh = mesh
        self.guard = guard
        self.max_body_bytes = max_body_bytes
        self.timeout_seconds = timeout_seconds
        self.trusted_proxies = tuple(trusted_proxies)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or is_own(scope["path"]):
            await self.inner(scope, receive, send)
            return
        await _Passage(self, scope, receive, send).serve()


def is_own(path: str) -> bool:
    """Whether the gateway itself answers `path`."""
    return path in OWN_PATHS or path.startswith(_OWN_FOLDER)


class _Passage:
    """One request on its way to a service, and the answer on its way back."""

    __slots__ = ("_edge", "_inbox", "_scope", "_send", "_started", "_upload")

    def __init__(self, edge: Edge, scope: Any, receive: Any, send: Any) -> None:
        self._edge = edge
        self._scope = scope
        self._send = send
        self._started = False
        self._inbox = Inbox(receive, has_body=environ.has_body(scope))
        self._upload = Upload(self._inbox, declared=_content_length(scope), limit=edge.max_body_bytes)

    async def serve(self) -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._inbox.watch(task.get_loop(), task.cancel)
        try:
            await self._pass_or_explain()
        except asyncio.CancelledError:
            # The client's going away is the one cancellation that was ours, and it ends here.
            if not self._inbox.disconnected or task.uncancel() > 0:
                raise
        except ClientDisconnected:
            pass
        finally:
            self._upload.close()
            self._inbox.close()

    async def _pass_or_explain(self) -> None:
        try:
            await self._pass()
        except PlatformError as error:
            if isinstance(error, Unavailable):
                event = "answer broken off" if self._started else "request not passed on"
                _log.warning(event, path=self._scope["path"], code=error.code, detail=str(error))
            if self._started:
                raise
            await self._explain(error)

    async def _pass(self) -> None:
        aim = target.read(self._scope)
        service = self._edge.mesh.directory.route(aim.path)
        if service is None:
            raise NotFound("No service announces this path")
        self._scope["route"] = service  # metrics and logs go by the service: the paths are without number
        await self._edge.guard.admit(aim.path, self._scope["headers"])
        content = await self._upload.open()
        async with self._edge.mesh.stream(
            self._scope["method"],
            service,
            aim.wire,
            headers=self._headers(aim, content),
            content=content or None,
            timeout=self._edge.timeout_seconds,
        ) as reply:
            await self._begin(reply.status, headers.outward(reply.headers, reply.status))
            async for chunk in reply.chunks():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._end()

    def _headers(self, aim: Target, content: bytes | AsyncIterator[bytes]) -> list[tuple[str, str]]:
        scope = self._scope
        peer = scope.get("client")
        client = Client(peer[0] if peer else None, scope.get("scheme", "http"), aim.authority or _host(scope))
        passed = headers.inward(scope["headers"], client, trusted=self._edge.trusted_proxies)
        declared = _content_length(scope)
        if declared is not None and not isinstance(content, bytes):
            passed.append(("content-length", str(declared)))
        return passed

    async def _begin(self, status: int, passed: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": passed})

    async def _end(self) -> None:
        self._upload.close()
        await self._send_last({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_last(self, message: Any) -> None:
        """Send the end of the answer, after what the client may still be sending."""
        if self._inbox.unread:
            await self._send({**message, "more_body": True})
            await self._inbox.discard(_LINGER_BYTES, _LINGER_SECONDS)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        # The server tells us of a disconnect when it is done with the answer, too: that one means nothing.
        self._inbox.close()
        await self._send(message)

    async def _explain(self, error: PlatformError) -> None:
        self._upload.close()
        await problems.send(self._send_problem, error, instance=self._scope["path"])

    async def _send_problem(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
        else:
            await self._send_last(message)


def _host(scope: Any) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == b"host"), None)


def _content_length(scope: Any) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else None
    return None
