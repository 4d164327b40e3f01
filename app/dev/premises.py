"""The data directory as the place of one supervisor: locked while it works there, and cleared of what a killed one left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.dev import control, lock, redis, state
from app.errors import Conflict

LOOK_SECONDS = 0.05


@contextmanager
def occupied(data_dir: Path, *, patience_seconds: float) -> Iterator[None]:
    """Hold the directory for the length of the block; it is cleared before and after.

    Args:
        patience_seconds: how long what a killed supervisor left may take to end by itself.

    Raises:
        Conflict: a supervisor is at work there.
    """
    make(data_dir)
    for folder in (data_dir / "logs", data_dir / "run"):
        folder.mkdir(exist_ok=True)
    try:
        with lock.exclusive(data_dir / state.LOCK_FILE):
            _clear(data_dir, patience_seconds=patience_seconds)
            try:
                yield
            finally:
                _clear(data_dir, patience_seconds=0)
    except lock.Held:
        raise Conflict(already_running(data_dir)) from None


def make(data_dir: Path) -> None:
    """Make the directory, if need be; what lies in it (logs, databases, secrets) is its owner's alone."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def already_running(data_dir: Path) -> str:
    known = state.running(data_dir)
    where = f" at {known.url} (pid {known.pid})" if known else ""
    return f"Already running{where} on {data_dir}; stop it with `mesh down`, or choose another --data-dir"


def _clear(data_dir: Path, *, patience_seconds: float) -> None:
    """Remove what says that something runs; what still does is waited for, then ended."""
    known = state.left_behind(data_dir)
    if known is not None and known.control is not None:
        control.clear(known.control)
    state.remove(data_dir)
    files = [*(data_dir / "run").glob("*"), data_dir / "redis" / redis.PID_FILE]
    give_up = time.monotonic() + patience_seconds
    while pids := [pid for pid in map(lock.holder, files) if pid is not None]:
        # Its leash has told each of them to go; whoever has not gone after a whole drain hangs.
        if time.monotonic() > give_up:
            _kill(pids)
        time.sleep(LOOK_SECONDS)
    for file in files:
        file.unlink(missing_ok=True)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
