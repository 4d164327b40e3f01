"""`wait`: very many requests at once to a view that awaits 100 ms: how long all take, and what each keeps in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from app.lab.bench import proc
from app.lab.bench.child import Child
from app.lab.bench.footing import LOOPBACK
from app.lab.bench.json_view import OURS, QUART, SERVICE, WSGI_TO_ASGI
from app.lab.bench.lab import Figures, Lab
from app.lab.bench.model import Comparison, Limit, Metric, Result, Sample, Subject
from app.lab.bench.subjects import views
from app.lab.figures import Goal
from app.lab.load import Burst, ClosedLoop, Target

METRICS = (
    Metric("wall_ms", "all answered after ms"),
    Metric("memory_kib", "KiB per request in flight", 1),
    Metric("cpu_us", "CPU µs/request", 1),
    Metric("errors", "errors"),
)
_SIDES = (SERVICE, OURS, QUART, WSGI_TO_ASGI)
_SETTLE_SECONDS = 0.2
_LOOK_SECONDS = 0.01
_WARM_UP_CONNECTIONS = 8


async def run(lab: Lab) -> Result:
    subjects: list[Subject] = []
    samples: list[Sample] = []
    comparisons: list[Comparison] = []
    limits: list[Limit] = []
    for count in lab.options.bursts:
        times = [_times(count, side) for side in lab.options.chosen(_SIDES)]
        subjects += times
        samples += await _measure_all(lab, times, count)
        for ours in (_times(count, SERVICE).key, _times(count, OURS).key):
            others = [_times(count, other).key for other in (QUART, WSGI_TO_ASGI)]
            comparisons += [Comparison(ours, other, ("memory_kib", "wall_ms", "cpu_us")) for other in others]
            limits.append(Limit(ours, "errors", Goal("at most", 0)))
    return Result(
        "wait",
        f"GET {views.WAIT_PATH}, an async view that awaits {views.WAIT_SECONDS * 1000:.0f} ms; all requests at once",
        ("Memory: peak of the resident set minus that of the warm, idle process; with the request's connection.",),
        tuple(subjects),
        METRICS,
        tuple(samples),
        tuple(comparisons),
        tuple(limits),
    )


def _times(count: int, side: Subject) -> Subject:
    return replace(side, key=f"{side.key}@{count}", label=f"{count:,} × {side.label}")


async def _measure_all(lab: Lab, subjects: Sequence[Subject], count: int) -> list[Sample]:
    # A fresh process each time: memory that was once taken is rarely given back, and the next peak would not show.
    return await lab.rounds("wait", subjects, lambda process: _burst(lab, process, count), ready=views.USER_PATH)


async def _burst(lab: Lab, process: Child, count: int) -> Figures:
    target = Target(LOOPBACK, process.port, views.WAIT_PATH)
    async with ClosedLoop(target, connections=_WARM_UP_CONNECTIONS):
        await asyncio.sleep(max(lab.options.warm_up_seconds, 2 * views.WAIT_SECONDS))
    await asyncio.sleep(_SETTLE_SECONDS)
    idle, cpu = proc.rss_bytes(process.pid), proc.cpu_seconds(process.pid)
    peak = _Peak(process.pid)
    watcher = asyncio.create_task(peak.watch())
    try:
        async with Burst(target, requests=count) as load:
            tally = await load.fire()
            peak.look()
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
    return {
        "wall_ms": tally.seconds * 1000,
        "memory_kib": (peak.bytes - idle) / count / 1024,
        "cpu_us": (proc.cpu_seconds(process.pid) - cpu) / count * 1e6,
        "errors": tally.failed,
    }


class _Peak:
    """The most memory that a process was seen with."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.bytes = 0

    def look(self) -> None:
        self.bytes = max(self.bytes, proc.rss_bytes(self._pid))

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)
