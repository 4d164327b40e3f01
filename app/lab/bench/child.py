"""One server process of the bench: on its core, on a port of its own, and gone when the block ends, however it ends."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

from app.errors import Unavailable
from app.lab.bench.footing import BACKLOG, LOOPBACK
from app.settings import ROOT

READY_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 0.05
# A process of the mesh gives its peers half a second's notice, then drains; who takes longer is killed.
STOP_SECONDS = 10.0
_LAST_WORDS_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Child:
    """A server that answers: its process and its port."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


@asynccontextmanager
async def serving(
    app: str, server: str, *, core: int, environment: Mapping[str, str], ready: str
) -> AsyncIterator[Child]:
    """Run `app` on `server`, bound to `core`, until the block ends.

    Args:
        environment: added to our own.
        ready: the path that answers 200 once it can be measured.

    Raises:
        Unavailable: it ended, or did not answer in time; the message has the end of what it wrote.
    """
    with tempfile.TemporaryFile() as log, socket.create_server((LOOPBACK, 0), backlog=BACKLOG) as sock:
        port = sock.getsockname()[1]
        options = ["--fd", str(sock.fileno()), "--core", str(core)]
        process = subprocess.Popen(  # noqa: ASYNC220  # it returns at once
            [sys.executable, "-m", "app.lab.bench.serve", app, server, *options],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(sock.fileno(),),
            # Ctrl-C is for us: we end them one by one.
            start_new_session=True,
        )
        try:
            # The socket is the child's alone now: if it dies, whoever waits for an answer hears of it.
            sock.close()
            await _until_ready(process, port, ready, log)
            yield Child(process.pid, port)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, if need be by force."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: IO[bytes]) -> None:
    said: object = "no answer"
    try:
        async with asyncio.timeout(READY_SECONDS):
            while process.poll() is None:
                try:
                    said = await asyncio.to_thread(_status, port, path)
                except OSError as error:
                    said = error
                if said == 200:
                    return
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
    except TimeoutError:
        pass
    log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
    words = log.read().decode(errors="replace").strip()
    raise Unavailable(f"A server of the bench is not ready: {path} says {said}. It wrote:\n{words or '(nothing)'}")


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=READY_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


async def output_of(module: str, *arguments: str, environment: Mapping[str, str], seconds: float) -> str:
    """What ``python -m module arguments`` prints.

    Raises:
        Unavailable: it failed, or took longer than `seconds`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            said, complaint = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"{module} did not end within {seconds:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Unavailable(f"{module} failed. It wrote:\n{complaint.decode(errors='replace')[-_LAST_WORDS_BYTES:]}")
    return said.decode()
