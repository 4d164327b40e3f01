"""Asks a peer over HTTP who it is. The address may have been taken over by another process: the name must fit."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver

from app import context
from app.mesh.registry.inquiry import Answer
from app.mesh.registry.record import Instance

_PATH = "/livez"
_MISDIRECTED = 421


class HttpProbe:
    """``GET /livez``: alive is whose reply carries ``x-mesh-instance`` with the id that was asked for, whatever its status.

    Use as an async context manager.

    Args:
        resolver: resolves names, only to addresses that may be connected to.
        timeout_seconds: for the whole probe.
    """

    def __init__(self, resolver: AbstractResolver, *, timeout_seconds: float = 1.0) -> None:
        self._resolver = resolver
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A new connection each time: an old one might still lead to whom a restart has replaced.
        connector = aiohttp.TCPConnector(resolver=self._resolver, force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, peer: Instance) -> Answer:
        """Raises nothing: whatever goes wrong is silence."""
        if self._session is None:
            return "silent"
        headers = {context.TARGET: peer.id}
        try:
            async with self._session.get(peer.url + _PATH, headers=headers, allow_redirects=False) as reply:
                named = reply.headers.get(context.INSTANCE)
                return "alive" if named == peer.id and reply.status != _MISDIRECTED else "gone"
        except aiohttp.ClientConnectorError as error:
            return "gone" if isinstance(error.os_error, ConnectionRefusedError) else "silent"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return "silent"
