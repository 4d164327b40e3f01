"""``mesh down``: what `mesh up` started, stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import typer

from app.cli import terminal
from app.cli.running import DataDir, load_settings
from app.dev import lock, state
from app.dev.stop import longest_seconds
from app.errors import Unavailable

# Beyond what the processes may take to end, the gateway and the services in turn.
MARGIN_SECONDS = 10.0
LOOK_SECONDS = 0.05


def register(mesh: typer.Typer) -> None:
    mesh.command("down")(down)


def down(*, data_dir: DataDir = None) -> None:
    """Stop what `mesh up` started, and wait for it. That nothing runs is no error."""
    settings = load_settings(data_dir)
    lock_file = settings.data_dir / state.LOCK_FILE
    pid = lock.holder(lock_file)
    if pid is None:
        typer.echo(f"Nothing runs on {settings.data_dir.resolve()}.")
        return
    with terminal.Screen("Stopping: the gateway first, then the services"):
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(lock_file, pid, within_seconds=2 * longest_seconds(settings) + MARGIN_SECONDS)
    typer.echo("Stopped.")


def _wait_for_end(lock_file: Path, pid: int, *, within_seconds: float) -> None:
    # The lock, not the pid: in a container without an init, a dead daemon stays in the table of processes.
    give_up = time.monotonic() + within_seconds
    while lock.holder(lock_file) == pid:
        if time.monotonic() > give_up:
            raise Unavailable(f"The supervisor (pid {pid}) does not stop")
        time.sleep(LOOK_SECONDS)
