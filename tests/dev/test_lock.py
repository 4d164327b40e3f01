"""One holder at a time, across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.dev import lock

HOLD = """
import sys, time
from pathlib import Path
from app.dev import lock
with lock.exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


def test_the_file_names_its_holder_and_goes_with_it(path: Path) -> None:
    with lock.exclusive(path):
        assert lock.holder(path) == os.getpid()
    assert lock.holder(path) is None
    assert not path.exists()


def test_a_second_holder_is_refused(path: Path) -> None:
    with lock.exclusive(path), pytest.raises(lock.Held), lock.exclusive(path):
        pytest.fail("two hold it")
    with lock.exclusive(path):
        """It is free again."""


def test_a_file_that_nobody_holds_is_no_lock(path: Path) -> None:
    path.write_text("4711\n")
    assert lock.holder(path) is None
    with lock.exclusive(path):
        assert lock.holder(path) == os.getpid()


def test_looking_does_not_get_in_the_way(path: Path) -> None:
    with lock.exclusive(path):
        assert [lock.holder(path) for _ in range(3)] == [os.getpid()] * 3


def test_a_killed_holder_lets_go(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert lock.holder(path) == holder.pid
        holder.kill()
    assert lock.holder(path) is None
    with lock.exclusive(path):
        """It can be taken, although the file was still there."""
