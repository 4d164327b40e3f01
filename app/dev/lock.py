"""One holder at a time, across processes: a lock file that holds its holder's pid, and vanishes with it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Somebody may just be looking (see `holder`), which takes the lock for a moment.
ATTEMPTS = 5
PAUSE_SECONDS = 0.02


class Held(Exception):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock `path`; the file is removed at the end, and the kernel lets go of it if we are killed.

    Raises:
        Held: someone else has it.
    """
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        # Removed while still held, so that nobody can have opened and locked it in between unnoticed (see _acquire).
        path.unlink(missing_ok=True)
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """The pid of the living process that holds the lock `path`, if one does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.read(descriptor, 32).strip()
        # It may be held by one who has not signed it yet.
        return int(written) if written.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def _acquire(path: Path) -> int:
    for _ in range(ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locks(descriptor) and _is_still_at(path, descriptor):
            return descriptor
        # Held, or removed by its last holder between our open and our lock: then this file is nobody's.
        os.close(descriptor)
        time.sleep(PAUSE_SECONDS)
    raise Held(f"{path} is held by another process")


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
