"""How a command speaks to a running supervisor: at a Unix socket, one order and then news until it is carried out.

    command ── {"kind": "rollout", "services": ["users"]} ──► supervisor
            ◄── {"kind": "step", "text": "…"} …              ──┤
            ◄── {"kind": "done"} or {"kind": "failed", …}    ──┘

One JSON document per line. The socket is its owner's alone. Who hangs up has lost interest: what is carried out is
told so, and ends at the next point at which nothing is left half done.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.dev.boot import BootFailed
from app.dev.events import Event, Report
from app.errors import BadInput, PlatformError, Unavailable

SOCKET_FILE = "control.sock"
FOLDER_PREFIX = "mesh-control-"
# The kernel's bound on a socket's path, with its closing zero byte: 108 bytes on Linux, 104 elsewhere.
MOST_PATH_BYTES = 103
ORDER_SECONDS = 5.0


class Order(BaseModel):
    """What a supervisor is asked to do."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["rollout"]
    services: tuple[str, ...]


# Carries out an order: reports what happens, and looks now and then whether anybody still wants it.
Work = Callable[[Order, Report, asyncio.Event], Awaitable[None]]


@contextmanager
def place(data_dir: Path) -> Iterator[Path]:
    """A path for the socket that is short enough: in the data directory, else in a temporary one of its own."""
    path = data_dir / SOCKET_FILE
    if len(os.fsencode(path)) > MOST_PATH_BYTES:
        path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX)) / SOCKET_FILE
    try:
        yield path
    finally:
        clear(path)


def clear(path: Path) -> None:
    """Remove what a killed supervisor may have left at `path`."""
    path.unlink(missing_ok=True)
    if path.parent.name.startswith(FOLDER_PREFIX):
        shutil.rmtree(path.parent, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- the supervisor's end


@asynccontextmanager
async def listen(path: Path, work: Work) -> AsyncIterator[None]:
    """Take orders for the length of the block; those still in work at its end are cancelled, and their senders told."""
    clerks: set[asyncio.Task[None]] = set()

    def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clerk = asyncio.create_task(_Clerk(reader, writer, work).serve(), name="control")
        clerks.add(clerk)
        clerk.add_done_callback(clerks.discard)

    server = await asyncio.start_unix_server(receive, sock=_bound(path))
    try:
        yield
    finally:
        server.close()
        for clerk in clerks:
            clerk.cancel()
        await asyncio.gather(*clerks, return_exceptions=True)


def _bound(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(os.fspath(path))
        # Nobody can connect before it listens: there is no moment at which it is anybody's.
        path.chmod(0o600)
    except BaseException:
        sock.close()
        raise
    return sock


class _Clerk:
    """One connection: one order, its news, its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, work: Work) -> None:
        self._reader, self._writer, self._work = reader, writer, work
        self._hung_up = asyncio.Event()

    async def serve(self) -> None:
        try:
            self._tell(await self._carry_out())
        except asyncio.CancelledError:
            self._tell(Event(kind="failed", text="The system is being stopped"))
            raise
        finally:
            self._writer.close()

    async def _carry_out(self) -> Event:
        listening: asyncio.Task[None] | None = None
        try:
            order = await self._read()
            listening = asyncio.create_task(self._wait_for_end(), name="control.end")
            await self._work(order, self._tell, self._hung_up)
        except PlatformError as error:
            details = error.tail if isinstance(error, BootFailed) else ()
            return Event(kind="failed", text=error.detail, details=details)
        finally:
            if listening is not None:
                listening.cancel()
        return Event(kind="done")

    async def _read(self) -> Order:
        try:
            async with asyncio.timeout(ORDER_SECONDS):
                return Order.model_validate_json(await self._reader.readline())
        except (TimeoutError, ValueError, OSError) as error:
            raise BadInput("That is no order") from error

    async def _wait_for_end(self) -> None:
        with suppress(OSError):
            while await self._reader.read(4096):
                """Nothing more is expected."""
        self._hung_up.set()

    def _tell(self, event: Event) -> None:
        if not (self._hung_up.is_set() or self._writer.is_closing()):
            self._writer.write(f"{event.model_dump_json()}\n".encode())


# --------------------------------------------------------------------------------------------------- the command's end


def ask(path: Path, order: Order) -> Generator[Event]:
    """Give an order; the iterator yields the news, the last of them ``done`` or ``failed``. Closing it hangs up.

    Raises:
        Unavailable: nobody takes orders there.
    """
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(os.fspath(path))
            line.sendall(f"{order.model_dump_json()}\n".encode())
        except OSError as error:
            raise Unavailable(f"The supervisor takes no orders at {path}: {error.strerror}") from error
        with line.makefile() as news:
            for text in news:
                event = Event.model_validate_json(text)
                yield event
                if event.kind in ("done", "failed"):
                    return
    yield Event(kind="failed", text="The supervisor ended without a word")
