"""What a supervisor has to tell whoever started it, in the order in which it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.dev.state import State


class Event(BaseModel):
    """One piece of news: a step on the way, the finished system, an order carried out, or why there is none."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["step", "note", "ready", "done", "failed"]
    text: str = ""
    state: State | None = None
    details: tuple[str, ...] = ()


Report = Callable[[Event], None]
