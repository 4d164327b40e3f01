"""Steady load: so many requests a second whatever comes of them (open loop), from a process of its own.

    with traffic.against(url, Mix(per_second=80, shares={"user": 4, "order": 1}), first=0) as load:
        …break something…
    load.journal                        # every request, with what came of it

A request's time counts from when it was due. Three in four go over kept connections, the others over one of their
own; nothing is ever sent twice: a connection that ends under a request has failed it, and that is what is counted.

The process (``python -m tests.faults.traffic``) gets the mix as its argument, writes one line of JSON per request that
has ended, and stops sending when its standard input ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.lab.http1 import BrokenReply, Head, parse_head
from tests.faults.journal import CANCELLED, Journal, Outcome
from tests.faults.kinds import KINDS, Kind

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 60.0
# A client keeps what it will use again soon, and no more.
_KEPT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Mix:
    """What is asked for, and how.

    Args:
        shares: how much of each kind, relative to the others.
        fresh_share: how many of them have a connection of their own, from 0 to 1.
        cancelled_share: how many are given up by the client after up to `cancelled_within_seconds`.
        timeout_seconds: what takes longer has failed.
    """

    per_second: float
    shares: Mapping[str, float] = field(default_factory=lambda: {"user": 4.0, "order": 1.0})
    fresh_share: float = 0.25
    cancelled_share: float = 0.0
    cancelled_within_seconds: float = 0.05
    timeout_seconds: float = 40.0
    seed: int = 1


# ------------------------------------------------------------------------------------------------ the test's side


class Traffic:
    """Load that is on its way; `journal` is what has ended so far."""

    def __init__(self, process: subprocess.Popen[str], mix: Mix, first: int) -> None:
        self.mix = mix
        self._process = process
        self._outcomes: list[Outcome] = []
        self._first = first
        self._reader = threading.Thread(target=self._read, name="traffic", daemon=True)
        self._reader.start()

    @property
    def journal(self) -> Journal:
        return Journal.of(self._outcomes[:])

    @property
    def count(self) -> int:
        """How many have ended."""
        return len(self._outcomes)

    def stop(self) -> Journal:
        """Send nothing more, wait for what is on its way, and return the whole journal."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        code = self._process.wait(STOP_SECONDS)
        self._reader.join()
        assert code == 0, f"the load generator ended with {code}"
        return self.journal

    def end(self) -> None:
        """By force, if it has not ended yet."""
        self._process.kill()
        self._reader.join()
        with self._process:
            """Its pipes are closed, and it is waited for."""

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._outcomes.append(Outcome(*json.loads(line)))


@contextmanager
def against(url: str, mix: Mix, *, first: int = 0, token: str = "") -> Iterator[Traffic]:
    """Load for the length of the block.

    Args:
        token: what every request bears, if anything.
        first: the number of the first request, so that no order is ever placed by two runs.
    """
    argument = json.dumps({"url": url, "first": first, "token": token, **dataclasses.asdict(mix)})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.traffic", argument],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    load = Traffic(process, mix, first)
    try:
        yield load
        load.stop()
    finally:
        load.end()


# ------------------------------------------------------------------------------------------------ the load's side


class Wire:
    """One connection."""

    __slots__ = ("idle_since", "reader", "reused", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.reused = False
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        return not (self.reader.at_eof() or self.writer.is_closing())

    async def exchange(self, request: bytes) -> tuple[int, bytes, bool]:
        """Status, body, and whether the connection may be used again."""
        self.writer.write(request)
        head = await self._head()
        return head.status, await self._body(head), head.keeps_alive

    def drop(self) -> None:
        self.writer.transport.abort()

    async def _head(self) -> Head:
        while True:
            head = parse_head((await self.reader.readuntil(b"\r\n\r\n"))[:-4])
            if head.status >= 200:
                return head

    async def _body(self, head: Head) -> bytes:
        if head.status in (204, 304):
            return b""
        if head.chunked:
            return b"".join([chunk async for chunk in self._chunks()])
        return await (self.reader.read() if head.length is None else self.reader.readexactly(head.length))

    async def _chunks(self) -> Any:
        while size := int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readuntil(b"\r\n")


class Generator:
    """Sends the mix, and tells what came of it."""

    def __init__(self, url: str, mix: Mix, first: int, token: str, tell: Callable[[Outcome], None]) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._netloc = parts.hostname or "", parts.port or 80, parts.netloc
        self._mix, self._first, self._token, self._tell = mix, first, token, tell
        self._rng = random.Random(mix.seed)
        self._idle: deque[Wire] = deque()

    async def run(self, stop: asyncio.Event) -> None:
        """Send at an even rate until `stop`, then wait for what is on its way."""
        begin, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                due = begin + sent / self._mix.per_second
                await asyncio.sleep(due - time.monotonic())
                group.create_task(self._one(self._first + sent, due))
                sent += 1
        for wire in self._idle:
            wire.drop()

    async def _one(self, number: int, due: float) -> None:
        rng, mix = self._rng, self._mix
        name = rng.choices(list(mix.shares), list(mix.shares.values()))[0]
        keep = rng.random() >= mix.fresh_share
        patience = mix.timeout_seconds
        given_up = rng.random() < mix.cancelled_share
        if given_up:
            patience = rng.uniform(0.0, mix.cancelled_within_seconds)
        status, fault, reused = await self._outcome(KINDS[name], number, keep=keep, patience=patience)
        if given_up and fault == "timeout":
            fault = CANCELLED
        self._tell(Outcome(name, number, due, time.monotonic() - due, status, fault, reused))

    async def _outcome(self, kind: Kind, number: int, *, keep: bool, patience: float) -> tuple[int, str, bool]:
        wire = self._kept() if keep else None
        status = 0
        try:
            async with asyncio.timeout(patience):
                if wire is None:
                    wire = Wire(*await asyncio.open_connection(self._host, self._port))
                request = kind.request(number).wire(self._netloc, keep=keep, token=self._token)
                status, body, again = await wire.exchange(request)
        except (OSError, EOFError, BrokenReply, ValueError) as error:
            if wire is not None:
                wire.drop()
            return 0, _fault(error), wire is not None and wire.reused
        reused = wire.reused
        self._put_back(wire, again=again and keep)
        return status, _judge(kind, number, status, body), reused

    def _kept(self) -> Wire | None:
        """The connection that was used last, if one is still good."""
        now = time.monotonic()
        while self._idle and (now - self._idle[0].idle_since > _KEPT_SECONDS or not self._idle[0].is_open):
            self._idle.popleft().drop()
        while self._idle:
            wire = self._idle.pop()
            if wire.is_open:
                wire.reused = True
                return wire
            wire.drop()
        return None

    def _put_back(self, wire: Wire, *, again: bool) -> None:
        if not again:
            wire.drop()
            return
        wire.idle_since = time.monotonic()
        self._idle.append(wire)


def _fault(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "timeout"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionError():
            return "reset"
        case asyncio.IncompleteReadError(partial=b""):
            return "closed"
        case asyncio.IncompleteReadError():
            return "cut off"
        case _:
            return "broken"


def _judge(kind: Kind, number: int, status: int, body: bytes) -> str:
    if status not in kind.statuses:
        return f"{status} {_code(body)}"
    try:
        return "" if kind.own(number, status, json.loads(body)) else "foreign"
    except (ValueError, KeyError, TypeError):
        return "broken"


def _code(body: bytes) -> str:
    """The code of a problem document."""
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return "without a problem document"


async def main(argument: str) -> None:
    arguments = json.loads(argument)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, stop.set)  # nobody writes to it: it becomes readable when it ends
    url, first, token = arguments.pop("url"), arguments.pop("first"), arguments.pop("token")
    generator = Generator(url, Mix(**arguments), first, token, _print)
    await generator.run(stop)


def _print(outcome: Outcome) -> None:
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
