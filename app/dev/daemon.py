"""The same in the background: fork, leave the terminal, and tell the one who waits how the start went."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from app.dev.boot import BootFailed
from app.dev.events import Event, Report
from app.errors import PlatformError


def detach(work: Callable[[Report], None], *, log: Path) -> Generator[Event]:
    """Run `work` in a process of its own; the iterator yields what it reports, up to ``ready`` or ``failed``.

    Whatever it says afterwards goes to `log`. Closing the iterator before that ends the process, and waits for it.
    Call this before any thread is started: it forks.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _become_daemon(work, os.fdopen(writing, "w"), log)
    os.close(writing)
    return _listen(os.fdopen(reading), pid, log)


def _listen(news: IO[str], pid: int, log: Path) -> Generator[Event]:
    done = False
    with news:
        try:
            for line in news:
                event = _parse(line)
                done = done or event.kind in ("ready", "failed")
                yield event
            if not done:
                done = True
                yield Event(kind="failed", text=f"It ended without a word; see {log}")
        finally:
            if not done:
                os.kill(pid, signal.SIGTERM)
                # Its end of the pipe closes when it has stopped everything.
                news.read()


def _parse(line: str) -> Event:
    try:
        return Event.model_validate_json(line)
    except ValidationError:
        return Event(kind="step", text=line.strip())


def _become_daemon(work: Callable[[Report], None], news: IO[str], log: Path) -> None:
    """Never returns: what follows the fork belongs to the process that waits."""
    code = 1
    try:
        os.setsid()
        _redirect(log)
        work(lambda event: _tell(news, event))
        code = 0
    except PlatformError as error:
        details = error.tail if isinstance(error, BootFailed) else ()
        _tell(news, Event(kind="failed", text=error.detail, details=details))
    except BaseException:  # noqa: BLE001  # nothing may leave the fork but its exit code
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    with Path(os.devnull).open("rb") as nothing, log.open("ab") as sink:
        os.dup2(nothing.fileno(), 0)
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)


def _tell(news: IO[str], event: Event) -> None:
    """To whoever waits, until the start is over; to the log from then on."""
    sys.stderr.write(f"{event.text or event.kind}\n")
    sys.stderr.flush()
    if news.closed:
        return
    try:
        news.write(f"{event.model_dump_json()}\n")
        news.flush()
        if event.kind in ("ready", "failed"):
            news.close()
    except BrokenPipeError:
        # Nobody waits any more; the system goes on (or is being told to stop).
        with suppress(BrokenPipeError):
            news.close()
