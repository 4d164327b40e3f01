"""Runs the registry's operations: on the event loop, or from a thread that may wait.

The two differ in a few lines each. Foreign errors become `errors.Unavailable` here. No call of this room stands on the
path of a request.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar, cast

import redis
import redis.asyncio

from app import redis_client
from app.errors import Unavailable
from app.mesh.keys import Keys
from app.mesh.registry import operations
from app.mesh.registry.change import Change, read_change
from app.mesh.registry.operations import Operation, Position, Snapshot, source

T = TypeVar("T")

# Long enough for ten thousand records, short enough that nobody waits a minute for a hung Redis (redis-py's default).
CALL_SECONDS = 2.0
_WATCH_BATCH = 1000


class BlockingRegistry:
    """Runs operations from a thread that may wait; connects when it is first used.

    Args:
        redis_url: see `app.redis_client`.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._client: redis.Redis | None = None

    def run(self, operation: Operation[T]) -> T:
        """Raises: Unavailable: Redis is away, hung, or refuses."""
        try:
            if self._client is None:
                self._client = redis_client.open_blocking(self._redis_url)
            script = self._client.register_script(source(operation.script))
            return operation.read(cast("list[Any]", script(keys=operation.keys, args=operation.args)))
        except redis_client.FAILURES as error:
            # The next call connects anew: behind the same address there may be another primary by then.
            self.close()
            raise _away(operation.script, error) from error

    def close(self) -> None:
        """Let go of the connection; the next call would open another one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class Registry:
    """Runs operations on the event loop; also reads the head and the log, which need no script."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def run(self, operation: Operation[T], *, within_seconds: float = CALL_SECONDS) -> T:
        """Raises: Unavailable: Redis is away, refuses, or took longer than `within_seconds` or `CALL_SECONDS`."""
        script = self._client.register_script(source(operation.script))
        try:
            async with asyncio.timeout(min(within_seconds, CALL_SECONDS)):
                reply = await script(keys=operation.keys, args=operation.args)
        except redis_client.FAILURES as error:
            raise _away(operation.script, error) from error
        return operation.read(reply)

    async def snapshot(self) -> Snapshot:
        """The records and rules, for a directory."""
        return await self.run(operations.snapshot(self._keys, whole=False))

    async def position(self) -> Position:
        """Where the history stands now; an empty `Position` if there is none. Raises: Unavailable."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                epoch, seq, mark = await self._client.hmget(self._keys.head, ["epoch", "seq", "mark"])
        except redis_client.FAILURES as error:
            raise _away("position", error) from error
        whole = epoch is not None and seq is not None and mark is not None
        return operations.position((epoch, seq, mark)) if whole else Position()

    async def changes(self, after_seq: int, *, block_seconds: float) -> list[Change]:
        """The next changes after `after_seq`, waiting up to `block_seconds` for the first. Raises: Unavailable."""
        try:
            reply = await self._client.xread(
                {self._keys.log: f"{after_seq}-0"}, count=_WATCH_BATCH, block=max(1, int(block_seconds * 1000))
            )
        except redis_client.FAILURES as error:
            raise _away("watch", error) from error
        streams = cast("list[tuple[Any, list[tuple[bytes, dict[bytes, bytes]]]]]", reply)
        return [read_change(key, fields) for _, entries in streams for key, fields in entries]


def _away(what: str, error: Exception) -> Unavailable:
    return Unavailable(f"Registry, {what}: {type(error).__name__}", retry_after=1.0)
