"""What a supervisor and its forker say to each other, one JSON document per line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Order(BaseModel):
    """Fork a replica with that environment, send a signal to the one that was ordered under that number, or let go.

    Args:
        inherits: whether the replica serves the listening sockets that the forker holds; else it closes them.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["fork", "signal", "let go"]
    number: int = 0
    name: str = ""
    environment: Mapping[str, str] = {}
    log: Path = Path(os.devnull)
    pid_file: Path = Path(os.devnull)
    inherits: bool = False
    sign: int = 0


class News(BaseModel):
    """What became of an order: the process runs, or has ended with `code` (negative: by that signal)."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["born", "ended"]
    number: int
    pid: int
    code: int = 0
