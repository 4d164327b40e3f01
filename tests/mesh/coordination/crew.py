"""Workers: real processes that speak by lines, and that can be stopped and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.settings import ROOT

PATIENCE_SECONDS = 20.0


class Worker:
    """Started with `hired`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def says(self) -> str:
        """Its next line; empty when it has ended."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def send(self, sign: signal.Signals) -> None:
        os.kill(self.pid, sign)

    async def end(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def hired(module: str, *args: str) -> AsyncIterator[Worker]:
    """Run ``python -m module args``; killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )  # fmt: skip
    worker = Worker(process)
    try:
        yield worker
    finally:
        await worker.end()


async def heard_line() -> str:
    """In a worker: the next line of its employer."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


def say(*words: object) -> None:
    """In a worker."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()
