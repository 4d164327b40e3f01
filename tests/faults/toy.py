"""A service of the tests', slow, failing and limited as it is told; `world` puts it into a project as app/services/toy.

It is told at run time, each process for itself: ``PUT <its own address>/toy/mood``. It counts what reaches it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from app.auth import callers, public, requires
from app.service import Service
from app.web import API, mesh

# In the data directory: what all toys have written, a number per line.
LEDGER = "toy.ledger"

# What is asked for under load is guarded as any service's routes are.
api = requires("users:read")(API("toy", __name__, prefix="/toy"))


class Mood(BaseModel):
    """How this process is to behave.

    Args:
        echo_seconds: how long `echo` takes.
        work_seconds: how long `work` takes, of which `work_slots` are done at once; the others queue up.
        broken_status: what `broken` answers.
        clock_ahead_seconds: how far the wall clock of this process has jumped.
    """

    echo_seconds: float = 0.0
    work_seconds: float = 0.1
    work_slots: int = Field(default=4, ge=1)
    broken_status: int = 503
    clock_ahead_seconds: float = 0.0


class _Process:
    """What this process is like, and what it has seen."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.pieces, self.worked_seconds = 0, 0.0
        self.ledger = os.open(Path(os.environ["MESH_DATA_DIR"]) / LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.become(Mood())

    def become(self, mood: Mood) -> None:
        self.mood = mood
        self.slots = asyncio.Semaphore(mood.work_slots)
        _Clock.ahead_seconds = mood.clock_ahead_seconds


class _Clock:
    """The wall clock; monotonic time does not jump."""

    ahead_seconds = 0.0
    time, time_ns = time.time, time.time_ns


def _put_clock_up() -> None:
    time.time = lambda: _Clock.time() + _Clock.ahead_seconds
    time.time_ns = lambda: _Clock.time_ns() + int(_Clock.ahead_seconds * 1e9)


_put_clock_up()
_process = _Process()


class Number(BaseModel):
    number: int


class Seen(BaseModel):
    """What has reached this process, by view; the pieces of `work` that are done, and the time that they took."""

    pid: int
    seen: dict[str, int]
    pieces: int
    worked_seconds: float


@api.get("/echo/<int:number>", responses={200: Number})
async def echo(path: Number) -> Number:
    """Say the number, after a while."""
    _process.seen["echo"] += 1
    await asyncio.sleep(_process.mood.echo_seconds)
    return path


@api.post("/echo/<int:number>", responses={200: Number})
async def write(path: Number) -> Number:
    """The same, and write it down first: it must not happen twice."""
    _process.seen["write"] += 1
    # As one piece at the end of the file, whoever else writes: no line is lost, not even by SIGKILL.
    os.write(_process.ledger, f"{path.number}\n".encode())
    await asyncio.sleep(_process.mood.echo_seconds)
    return path


@api.get("/work/<int:number>", responses={200: Number})
async def work(path: Number) -> Number:
    """Something of which only so much can be done."""
    _process.seen["work"] += 1
    async with _process.slots:
        began = time.monotonic()
        await asyncio.sleep(_process.mood.work_seconds)
        _process.worked_seconds += time.monotonic() - began
        _process.pieces += 1
    return path


@api.get("/broken/<int:number>")
async def broken(path: Number) -> tuple[dict[str, Any], int]:
    """Fail."""
    _process.seen["broken"] += 1
    return {"number": path.number}, _process.mood.broken_status


@api.get("/relay/<int:number>")
async def relay(path: Number) -> tuple[dict[str, Any], int]:
    """Ask another toy for what fails: one more layer that could repeat it."""
    _process.seen["relay"] += 1
    reply = await mesh.get("toy", f"/toy/bottom/{path.number}")
    return {"number": path.number}, reply.status


@api.get("/bottom/<int:number>")
@callers("toy")
async def bottom(path: Number) -> tuple[dict[str, Any], int]:
    """What `relay` asks for: it fails, too."""
    _process.seen["bottom"] += 1
    return {"number": path.number}, _process.mood.broken_status


@api.get("/ask/<int:number>", responses={200: Number})
async def ask(path: Number) -> Number:
    """Ask another service."""
    _process.seen["ask"] += 1
    reply = await mesh.get("users", f"/users/{1 + path.number % 100}")
    reply.expect(200)
    return path


@api.put("/mood", responses={200: Mood})
@public
async def be(body: Mood) -> Mood:
    _process.become(body)
    return body


@api.get("/seen", responses={200: Seen})
@public
async def seen() -> Seen:
    it = _process
    return Seen(pid=os.getpid(), seen=dict(it.seen), pieces=it.pieces, worked_seconds=it.worked_seconds)


service = Service("toy", blueprints=(api,), prefixes=("/toy",), description="A service of the tests'.")
