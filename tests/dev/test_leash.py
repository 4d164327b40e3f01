"""A child ends when its parent does, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.dev import leash, lock
from tests.dev.system import is_gone, until

PARENT = """
import subprocess, sys, time
from pathlib import Path
from app.dev import leash
subprocess.Popen(leash.command(["sleep", "600"], pid_file=Path(sys.argv[1])), start_new_session=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_takes_its_child_along(tmp_path: Path, sign: signal.Signals) -> None:
    pid_file = tmp_path / "child.pid"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(pid_file)]) as parent:
        child = until("the child runs", lambda: lock.holder(pid_file))
        parent.send_signal(sign)
    until("the child is gone", lambda: is_gone(child))
    assert lock.holder(pid_file) is None


def test_the_command_has_the_pid_and_the_exit_code_of_the_leash(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getpid()); sys.exit(7)"
    argv = leash.command([sys.executable, "-c", script], pid_file=tmp_path / "pid")
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid
    assert process.returncode == 7


def test_one_pid_file_is_for_one_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with subprocess.Popen(leash.command(["sleep", "600"], pid_file=pid_file)) as first:
        assert until("it runs", lambda: lock.holder(pid_file)) == first.pid
        second = subprocess.run(leash.command(["true"], pid_file=pid_file), check=False, capture_output=True, text=True)
        assert second.returncode == 1
        assert "it is running already" in second.stderr
        first.terminate()


def test_who_is_not_the_parent_cannot_hold_the_leash(tmp_path: Path) -> None:
    argv = leash.command(["true"], pid_file=tmp_path / "pid")
    argv[argv.index(str(os.getpid()))] = "1"
    assert subprocess.run(argv, check=False).returncode == 1
