"""Where the processes of `mesh up` come from: asks the forker for one, and hears when it has ended.

A forker that dies takes its children along; the next order starts a new one.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from app.dev import leash
from app.dev.orders import News, Order

STOP_SECONDS = 5.0
# What is assumed of a child whose forker has died: nobody is left who could know.
LOST = -int(signal.SIGTERM)


class Child:
    """One forked process, from its order to its end."""

    def __init__(self, number: int, nursery: Nursery) -> None:
        self.number, self.pid = number, 0
        self._nursery = nursery
        self._known = asyncio.Event()
        self._ended = asyncio.Event()
        self.code: int | None = None

    def __repr__(self) -> str:
        return f"<Child {self.number}, pid {self.pid}, {'runs' if self.code is None else f'ended with {self.code}'}>"

    @property
    def is_running(self) -> bool:
        return self.code is None

    async def known(self) -> None:
        """Return once it is born, or is known never to be."""
        await self._known.wait()

    async def ended(self) -> int:
        """Wait for its exit code, negative for a signal."""
        await self._ended.wait()
        return self.code or 0

    def send(self, sign: signal.Signals) -> None:
        if self.is_running:
            self._nursery.order(Order(kind="signal", number=self.number, sign=int(sign)))

    def is_born(self, pid: int) -> None:
        self.pid = pid
        self._known.set()

    def has_ended(self, code: int) -> None:
        self.code = code
        self._known.set()
        self._ended.set()


class Nursery:
    """Starts processes. Use as an async context manager: entering starts to import, leaving ends what still runs.

    Args:
        sockets: descriptors of listening sockets, for the processes that inherit them.
    """

    def __init__(self, *, log: Path, pid_file: Path, sockets: Sequence[int] = ()) -> None:
        self.log, self._pid_file, self._sockets = log, pid_file, tuple(sockets)
        self._forker: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._children: dict[int, Child] = {}
        self._count = 0
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._have_forker()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._forker is None or self._listening is None:
            return
        if self._forker.stdin is not None:
            self._forker.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._forker.wait()
        except TimeoutError:
            self._forker.kill()
            await self._forker.wait()
        await self._listening
        self._pid_file.unlink(missing_ok=True)

    async def fork(
        self, name: str, *, environment: Mapping[str, str], log: Path, pid_file: Path, inherits: bool = False
    ) -> Child:
        """Start a process; it may have ended already when this returns.

        Args:
            inherits: whether it keeps the listening sockets.
        """
        await self._have_forker()
        self._count += 1
        child = self._children[self._count] = Child(self._count, self)
        self.order(
            Order(
                kind="fork",
                number=child.number,
                name=name,
                environment=environment,
                log=log,
                pid_file=pid_file,
                inherits=inherits,
            )
        )
        await child.known()
        return child

    def let_go(self) -> None:
        """Have the listening sockets closed here: from now on they live as long as the processes that serve them."""
        self._sockets = ()
        self.order(Order(kind="let go"))

    def order(self, order: Order) -> None:
        if self._forker is not None and self._forker.stdin is not None and not self._forker.stdin.is_closing():
            self._forker.stdin.write(order.model_dump_json().encode() + b"\n")

    async def _have_forker(self) -> None:
        async with self._starting:
            if self._listening is not None and not self._listening.done():
                return
            with self.log.open("ab") as sink:
                self._forker = await asyncio.create_subprocess_exec(
                    *leash.command(self._argv(), pid_file=self._pid_file),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=sink,
                    start_new_session=True,
                    pass_fds=self._sockets,
                )
            if self._forker.stdout is not None:
                self._listening = asyncio.create_task(self._listen(self._forker, self._forker.stdout), name="nursery")

    def _argv(self) -> list[str]:
        return [sys.executable, "-m", "app.dev.forker", *map(str, self._sockets)]

    async def _listen(self, forker: asyncio.subprocess.Process, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            news = News.model_validate_json(line)
            child = self._children[news.number]
            if news.kind == "born":
                child.is_born(news.pid)
            else:
                child.has_ended(news.code)
                del self._children[news.number]
        await forker.wait()
        for child in self._children.values():
            child.has_ended(LOST)
        self._children.clear()
