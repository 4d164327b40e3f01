"""`ended`: how soon every process knows that a session has ended: from the word on one board to the copies of the others."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from app import redis_client
from app.lab import figures
from app.lab.bench.footing import REDIS_SECONDS
from app.lab.bench.lab import Lab
from app.lab.bench.model import Limit, Metric, Result, Sample, Subject
from app.lab.figures import Goal
from app.mesh.coordination import Board, open_board, open_line
from app.mesh.coordination.board import Notices
from app.mesh.keys import Keys

PROCESSES = 20
BOARDS = Subject("boards", f"{PROCESSES} boards hear that a session has ended")
METRICS = (
    Metric("p50_ms", "p50 ms", 2),
    Metric("p99_ms", "p99 ms", 2),
    Metric("longest_ms", "longest ms", 1),
)
# A logout holds within a second, everywhere.
_GOAL = Goal("at most", 1000.0)
_STANDS_SECONDS = 600.0
_BLOCK_SECONDS = 10.0
_LOOK_SECONDS = 0.01


async def run(lab: Lab) -> Result:
    await lab.require_redis()
    samples = []
    for number in range(1, lab.options.rounds + 1):
        samples.append(Sample(BOARDS.key, number, await _round(lab, f"ended-{number}", lab.options.calls // 50)))
        lab.report("ended", number, BOARDS, samples[-1].figures)
    return Result(
        "ended",
        f"From one board to {PROCESSES} others over Redis, all on one event loop",
        ("In production each is a process of its own: here they share a core, and wait for one another.",),
        (BOARDS,),
        METRICS,
        tuple(samples),
        limits=(Limit(BOARDS.key, "longest_ms", _GOAL),),
    )


class _Stopwatch:
    """When the last session was said to have ended, and how long each board took to hear of it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began, self._to_come = 0.0, 0
        self._all = asyncio.Event()

    async def time(self, say: Callable[[], Awaitable[object]], hearers: int) -> None:
        self._to_come, self._began = hearers, time.perf_counter()
        self._all.clear()
        await say()
        await self._all.wait()

    def heard(self, _: Notices) -> None:
        self.seconds.append(time.perf_counter() - self._began)
        self._to_come -= 1
        if not self._to_come:
            self._all.set()


async def _round(lab: Lab, name: str, sessions: int) -> dict[str, float]:
    watch = _Stopwatch()
    async with AsyncExitStack() as stack:
        speaker, *hearers = [await stack.enter_async_context(_board(lab, name)) for _ in range(PROCESSES + 1)]
        while not all(board.watching for board in hearers):
            await asyncio.sleep(_LOOK_SECONDS)
        for board in hearers:
            board.listen(watch.heard)
        for _ in range(sessions):
            ended = {uuid.uuid4().hex: time.time() + _STANDS_SECONDS}
            await watch.time(partial(speaker.post, ended), PROCESSES)
    seconds = sorted(watch.seconds)
    return {
        "p50_ms": figures.percentile(seconds, 50) * 1000,
        "p99_ms": figures.percentile(seconds, 99) * 1000,
        "longest_ms": seconds[-1] * 1000,
    }


@asynccontextmanager
async def _board(lab: Lab, name: str) -> AsyncIterator[Board]:
    """The board of one process; of a new name in each round, since what stands already is no news."""
    line = open_line(lab.redis_url, timeout_seconds=REDIS_SECONDS)
    watch = redis_client.open_watch(lab.redis_url, block_seconds=_BLOCK_SECONDS)
    keys = Keys(lab.namespace)
    async with (
        line as opened,
        open_board(name, line=opened, watch=watch, keys=keys, block_seconds=_BLOCK_SECONDS) as board,
    ):
        yield board
