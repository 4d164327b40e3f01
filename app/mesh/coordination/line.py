"""Commands to a Redis that may be away: short timeouts, and none at all while it is known to be away.

        a command fails for want of a connection or of an answer
    UP ─────────────────────────────────────────────────────────► AWAY
     ▲                                                              │
     └──────────── a ping in the background is answered ────────────┘

While it is away every call is refused at once, so nobody waits for a hung Redis again and again; the pings are nobody's
time but their own. Every command runs in a task of its own: redis-py sends under ``asyncio.wait_for``, which on Python
3.11 can lose its caller's cancellation (python/cpython#86296), and a command that is cancelled half-way costs its
connection. So a caller that is cancelled leaves at once, and its command ends by itself, within its timeout.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import TracebackType
from typing import Any, Self

import redis.asyncio
import redis.exceptions

from app import redis_client, telemetry
from app.errors import Unavailable
from app.mesh.balancing.backoff import out_seconds
from app.mesh.registry.directory import cancelled

_log = telemetry.log("mesh.line")

# More at once would only queue in Redis, and each of them needs a connection.
COMMANDS_AT_ONCE = 64

_PING_AFTER_SECONDS = (0.05, 2.0)
# One that is lost again sooner than this is still in the same trouble.
_STEADY_SECONDS = 5.0

# Errors that say nothing about the command: nobody is there, or nobody who may write (a replica, after a failover).
_AWAY = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterError,
    redis.exceptions.RedisClusterException,
    OSError,
    # uvloop's, to who writes to a connection that was reset a moment ago.
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its SHA1, by which Redis knows it."""

    name: str
    source: str
    sha: str


# What scripts that tell other processes begin with, so that nobody misses what is said.
ANNOUNCE = ("app.mesh.coordination", "announce")


@cache
def load(package: str, name: str, *preludes: tuple[str, str]) -> Script:
    """The script `name` of the folder ``scripts`` of `package`, behind `preludes`: pairs of package and name."""
    parts = (*preludes, (package, name))
    source = "".join((resources.files(home) / "scripts" / f"{part}.lua").read_text("utf-8") for home, part in parts)
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Line:
    """One process's line to Redis, shared by its cache, locks, jobs and limits. Use as an async context manager.

    Args:
        client: with short timeouts and without repeats of its own; stays the caller's.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._clock, self._rng = clock, rng or random.Random()
        self._room = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listeners: list[Callable[[bool], None]] = []
        self._up, self._closed = True, False
        self._since, self._times, self._reason = clock(), 0, ""

    def __repr__(self) -> str:
        return f"<Line {'up' if self._up else f'away: {self._reason}'}, {len(self._tasks)} under way>"

    @property
    def up(self) -> bool:
        """Whether commands are sent at all."""
        return self._up

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` on the loop with True when Redis is back, with False when it is gone."""
        self._listeners.append(listener)

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes | int] = (),
        *,
        undo: Callable[[], Awaitable[object]] | None = None,
    ) -> Any:
        """Run `script` and return Redis's reply.

        Args:
            undo: run in the background if the caller is cancelled before the reply is there.

        Raises:
            Unavailable: Redis is away, hung, or refuses.
        """
        if not self._up:
            raise self._unavailable(script)
        command = self.spawn(self._command(script, keys, args))
        try:
            return await asyncio.shield(command)
        except asyncio.CancelledError:
            if undo is not None and not self._closed:
                self.spawn(_afterwards(command, undo))
            raise

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in the background; it ends with this line at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed, self._up, self._reason = True, False, "closed"
        await cancelled(list(self._tasks))

    async def _command(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        async with self._room:
            if not self._up:  # it went away while this one stood in the queue
                raise self._unavailable(script)
            try:
                return await self._evaluate(script, keys, args)
            except _AWAY as error:
                self._lost(error)
                raise self._unavailable(script) from error
            except redis.exceptions.RedisError as error:
                raise Unavailable(f"Redis, {script.name}: {error}", retry_after=1.0) from error

    async def _evaluate(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        rest: Any = (len(keys), *keys, *args)
        try:
            return await self._client.evalsha(script.sha, *rest)
        except redis.exceptions.NoScriptError:
            return await self._client.eval(script.source, *rest)

    def _lost(self, error: Exception) -> None:
        if not self._up or self._closed:
            return
        self._times = self._times + 1 if self._clock() - self._since < _STEADY_SECONDS else 0
        self._up, self._reason = False, type(error).__name__
        _log.warning("redis is away", reason=self._reason)
        self.spawn(self._find())
        self._tell()

    async def _find(self) -> None:
        while True:
            await asyncio.sleep(out_seconds(*_PING_AFTER_SECONDS, self._times, self._rng))
            try:
                await self._client.execute_command("PING")  # type: ignore[no-untyped-call]  # redis-py's own gap
                break
            except redis_client.FAILURES:
                self._times += 1
        self._up, self._since = True, self._clock()
        _log.info("redis is back")
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self._up)

    def _unavailable(self, script: Script) -> Unavailable:
        return Unavailable(f"Redis is away ({self._reason}): {script.name}", retry_after=1.0)


@asynccontextmanager
async def open_line(redis_url: str, *, timeout_seconds: float) -> AsyncIterator[Line]:
    """A line over a client of its own; nothing is connected before it is used.

    Args:
        redis_url: see `app.redis_client`.
        timeout_seconds: of one command.
    """
    client = redis_client.open_async(redis_url, timeout_seconds=timeout_seconds, max_connections=2 * COMMANDS_AT_ONCE)
    try:
        async with Line(client) as line:
            yield line
    finally:
        await client.aclose()


async def _afterwards(command: asyncio.Task[Any], undo: Callable[[], Awaitable[object]]) -> None:
    """The command may have been carried out, whatever became of its reply."""
    await asyncio.wait({command})
    try:
        await undo()
    except Unavailable:
        _log.info("could not undo an abandoned command; it lapses by itself")
