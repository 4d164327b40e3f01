"""What runs, in a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from app.dev import lock, state
from app.dev.state import State


def a_state(pid: int) -> State:
    return State(
        phase="ready", pid=pid, url="http://127.0.0.1:8000", redis_url="redis://h", namespace="mesh", redis_pid=1
    )


def test_it_is_true_only_while_its_writer_holds_the_lock(tmp_path: Path) -> None:
    with lock.exclusive(tmp_path / state.LOCK_FILE):
        state.write(tmp_path, a_state(os.getpid()))
        assert state.running(tmp_path) == a_state(os.getpid())
    assert state.running(tmp_path) is None
    assert state.left_behind(tmp_path) == a_state(os.getpid())


def test_what_a_dead_supervisor_wrote_is_not_taken_for_the_word_of_a_new_one(tmp_path: Path) -> None:
    state.write(tmp_path, a_state(os.getpid() + 1))
    with lock.exclusive(tmp_path / state.LOCK_FILE):
        assert state.running(tmp_path) is None


def test_only_its_owner_can_read_it_since_it_holds_a_password(tmp_path: Path) -> None:
    state.write(tmp_path, a_state(1))
    assert stat.S_IMODE((tmp_path / state.STATE_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [state.STATE_FILE]


def test_a_broken_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / state.STATE_FILE).write_text('{"phase": "rea')
    assert state.left_behind(tmp_path) is None
