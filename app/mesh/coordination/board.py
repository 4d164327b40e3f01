"""A board of short notices, each with an end, of which every process has a copy: within milliseconds, as a rule.

    post ─► our own copy ─► Redis: the board, and an entry of its log ─► the other processes' watches ─► their copies

A copy only ever grows until its notices are over: a Redis that is away, flushed or stale takes nothing back. Whoever
begins to hear the log (at the start, after an outage or a gap) reads the whole board, and puts back what is missing there.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from app import telemetry
from app.errors import Unavailable
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.coordination.watch import Watch
from app.mesh.keys import RETENTION_MS, Keys
from app.mesh.registry.directory import cancelled

_log = telemetry.log("mesh.board")

_POST = lines.load("app.mesh.coordination", "post", lines.ANNOUNCE)
_READ = lines.load("app.mesh.coordination", "board")
LOG_LENGTH = 1000
# In one call of the script.
_BATCH = 500
_AGAIN_SECONDS = 1.0

# Notice → until when it stands, in seconds of the epoch.
Notices = Mapping[str, float]
Listener = Callable[[Notices], None]


class Board:
    """One process's copy of the board `name`; made by `open_board`.

    Args:
        clock: seconds of the epoch.
    """

    def __init__(self, name: str, *, line: Line, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self.name, self.origin = name, os.urandom(8).hex()
        self._line, self._clock = line, clock
        self._board, self._log_key = keys.board(name), keys.board_log(name)
        self._copy: dict[str, float] = {}
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = self._closed = self._retrying = False
        line.listen(self._line_changed)

    def __repr__(self) -> str:
        return f"<Board {self.name}, {len(self._copy)} notices, {'watching' if self._watching else 'deaf'}>"

    @property
    def watching(self) -> bool:
        """Whether what others post is heard."""
        return self._watching

    @property
    def notices(self) -> Notices:
        """Those that stand, as far as this process knows."""
        now = self._clock()
        return {notice: until for notice, until in self._copy.items() if until > now}

    def listen(self, listener: Listener) -> None:
        """`listener` is told of the notices that stand, at once, and of every new one; called on the loop."""
        self._listeners.append(listener)
        if standing := self.notices:
            listener(standing)

    async def post(self, notices: Notices) -> bool:
        """Put `notices` up. This process believes them at once; False if Redis is away, and will get them later."""
        self._take(notices)
        return await self._send(notices)

    def describe(self) -> dict[str, Any]:
        """Plain facts for the management view."""
        return {"notices": len(self.notices), "watching": self._watching}

    # ------------------------------------------------------------------------------------------------ what is heard

    def heard(self, names: Sequence[str]) -> None:
        """Another process has posted: each name is an end in ms, a space, the notice."""
        self._take(dict(map(_read, names)))

    def watching_is(self, *, on: bool) -> None:
        self._watching = on
        if on:
            self._spawn(self._compare())

    def _take(self, notices: Notices) -> None:
        now = self._clock()
        new = {notice: until for notice, until in notices.items() if until > max(now, self._copy.get(notice, 0.0))}
        for notice in [notice for notice, until in self._copy.items() if until <= now]:
            del self._copy[notice]
        self._copy.update(new)
        if new:
            for listener in self._listeners:
                listener(new)

    # ------------------------------------------------------------------------------------------------ what is said

    async def _compare(self) -> None:
        """Read the whole board, and put back what it has lost."""
        try:
            flat = await self._line.run(_READ, [self._board], [self._now_ms()])
        except Unavailable:
            self._retry()
            return
        there = {notice.decode(): float(until) / 1000 for notice, until in zip(flat[::2], flat[1::2], strict=True)}
        self._take(there)
        await self._send(
            {notice: until for notice, until in self.notices.items() if _ms(until) > _ms(there.get(notice, 0))}
        )

    async def _send(self, notices: Notices) -> bool:
        items = list(notices.items())
        try:
            for start in range(0, len(items), _BATCH):
                await self._run(items[start : start + _BATCH])
        except Unavailable as error:
            _log.warning("notices could not be posted; they will be", board=self.name, reason=str(error))
            self._retry()
            return False
        return True

    async def _run(self, items: Sequence[tuple[str, float]]) -> None:
        pairs = [part for notice, until in items for part in (str(_ms(until)), notice)]
        args: list[str | int] = [self.origin, LOG_LENGTH, RETENTION_MS, self._now_ms(), *pairs]
        await self._line.run(_POST, [self._board, self._log_key], args)

    def _now_ms(self) -> int:
        return _ms(self._clock())

    def _retry(self) -> None:
        """A Redis that is there and refuses (full, loading, a key of another kind) does not come back: it is asked again."""
        if self._line.up and not self._retrying:
            self._retrying = True
            self._spawn(self._again())

    async def _again(self) -> None:
        await asyncio.sleep(_AGAIN_SECONDS)
        self._retrying = False
        await self._compare()

    # ------------------------------------------------------------------------------------------------ its life

    def _line_changed(self, up: bool, /) -> None:
        if up:
            self._spawn(self._compare())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(work, name="mesh.board")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        self._closed = True
        await cancelled(list(self._tasks))


class _Ear:
    """The board, as its watch sees it."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def heard(self, names: Sequence[str]) -> None:
        self._board.heard(names)

    def watching(self, *, on: bool) -> None:
        self._board.watching_is(on=on)


@asynccontextmanager
async def open_board(
    name: str, *, line: Line, watch: redis.asyncio.Redis, keys: Keys, block_seconds: float
) -> AsyncIterator[Board]:
    """Open this process's copy of a board; a Redis that is away is not fatal.

    Args:
        line: stays the caller's.
        watch: a client for blocking reads of `block_seconds`; the board's from here on.
    """
    board = Board(name, line=line, keys=keys)
    ear = Watch(watch, keys.board_log(name), origin=board.origin, listener=_Ear(board), block_seconds=block_seconds)
    ear.start()
    try:
        yield board
    finally:
        await ear.aclose()
        await board.aclose()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _read(name: str) -> tuple[str, float]:
    until, _, notice = name.partition(" ")
    return notice, int(until) / 1000
