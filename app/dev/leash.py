"""Run a command that ends when the process that asked for it does: ``python leash.py PARENT SIGNAL PID_FILE COMMAND …``.

It becomes the command (``exec``), so pid and exit status are the command's own. Even a parent that is killed with
SIGKILL takes it along: on Linux the kernel sends SIGNAL when the parent dies (``PR_SET_PDEATHSIG``, which outlives
``exec``); elsewhere a small watcher looks once a second.

PID_FILE is locked for as long as the command lives: whoever finds it locked may trust the pid in it, and signal it.

It is run by its path, in an interpreter without site-packages, so that it costs a few milliseconds; hence it imports
nothing of the house.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
WATCH_SECONDS = 1.0


def command(
    argv: Sequence[str | os.PathLike[str]], *, pid_file: Path, sign: signal.Signals = signal.SIGTERM
) -> list[str]:
    """The argv that runs `argv` on a leash held by this process; `sign` is what a dead parent sends."""
    leash = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    return [*leash, str(os.getpid()), str(int(sign)), str(pid_file), *(os.fspath(part) for part in argv)]


def main(argv: list[str]) -> None:
    put_on(int(argv[1]), signal.Signals(int(argv[2])), argv[3])
    os.execvp(argv[4], argv[4:])  # noqa: S606  # a shell is what we do not want


def put_on(parent: int, sign: signal.Signals, pid_file: str) -> None:
    """Bind this process, and what it may `exec`, to `parent`; lock and sign `pid_file`.

    Exits the process if `parent` is gone already, or the pid file is held.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sign), 0, 0, 0)
    else:
        _watch(parent, os.getpid(), int(sign))
    # It may have died before the leash was on.
    if os.getppid() != parent:
        sys.exit(1)
    _sign_in(pid_file)


def name(title: str) -> None:
    """What `ps -o comm` and `top` call this process, where that can be told (Linux; 15 bytes)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NAME, title.encode()[:15], 0, 0, 0)


def _sign_in(pid_file: str) -> None:
    """Lock the pid file through a descriptor that the command inherits, and so holds until it ends."""
    descriptor = os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"{pid_file}: it is running already")
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    os.set_inheritable(descriptor, True)


def _watch(parent: int, child: int, sign: int) -> None:
    """Leave a process behind that signals `child` once `parent` is gone, and ends with either."""
    if os.fork():
        return
    os.setsid()
    while _alive(parent) and _alive(child):
        time.sleep(WATCH_SECONDS)
    if _alive(child):
        os.kill(child, sign)
    os._exit(0)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(sys.argv)
