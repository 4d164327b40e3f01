"""What runs, for whoever asks: ``state.json`` in the data directory, written whole or not at all.

It tells the truth only while its supervisor holds the lock beside it: `running` checks that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.dev import lock

STATE_FILE = "state.json"
LOCK_FILE = "mesh.lock"


# A process on its way up, one that is up, and one whose successor is up.
Stage = Literal["joining", "serving", "leaving"]


class Process(BaseModel):
    """One replica as it was last started; while it is replaced there are two of the same number.

    Args:
        url: its own address; a gateway serves the system's public one besides.
        restarts: how often it was started again after it had ended by itself.
    """

    model_config = ConfigDict(frozen=True)

    service: str
    number: int
    pid: int
    url: str
    log: Path
    restarts: int = 0
    stage: Stage = "serving"


class State(BaseModel):
    """A supervisor and what it runs. It holds passwords and a token: the file is its owner's alone.

    Args:
        url: the public edge.
        management_token: opens ``/_mesh`` of every process.
        control: the Unix socket at which the supervisor takes orders.
    """

    model_config = ConfigDict(frozen=True)

    phase: Literal["starting", "ready", "stopping"]
    pid: int
    url: str
    redis_url: str
    namespace: str
    redis_pid: int | None
    management_token: str = Field(default="", repr=False)
    control: Path | None = None
    processes: tuple[Process, ...] = ()


def write(data_dir: Path, state: State) -> None:
    """Replace the file in one step: a reader sees the old or the new one, never a half."""
    scratch = data_dir / f".{STATE_FILE}.{os.getpid()}"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(state.model_dump_json(indent=2))
    scratch.replace(data_dir / STATE_FILE)


def remove(data_dir: Path) -> None:
    (data_dir / STATE_FILE).unlink(missing_ok=True)


def left_behind(data_dir: Path) -> State | None:
    """What the file says, true or not; None if there is none or it cannot be read."""
    try:
        return State.model_validate_json((data_dir / STATE_FILE).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def running(data_dir: Path) -> State | None:
    """What runs there, if the supervisor that wrote it is alive."""
    state = left_behind(data_dir)
    return state if state is not None and state.pid == lock.holder(data_dir / LOCK_FILE) else None
