"""Finds the running system that a command is to speak to, by its data directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app import settings as settings_module
from app.dev import state
from app.errors import Unavailable
from app.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Of the running system [default: MESH_DATA_DIR, or .mesh/ here]."),
]


@dataclass(frozen=True, slots=True)
class System:
    """Where to ask: the settings of this shell, and the Redis of the system."""

    settings: Settings
    redis_url: str


def load_settings(data_dir: Path | None, **overrides: object) -> Settings:
    """The settings, with what the command line says on top; None says nothing."""
    given = {name: value for name, value in {"data_dir": data_dir, **overrides}.items() if value is not None}
    return settings_module.load(**given)


def find(data_dir: Path | None) -> System:
    """What runs on the data directory; without `mesh up`, what REDIS_URL names.

    Raises:
        Unavailable: nothing runs there, and REDIS_URL is not set.
    """
    settings = load_settings(data_dir)
    known = state.running(settings.data_dir)
    if known is not None:
        registry = settings.registry.model_copy(update={"namespace": known.namespace})
        return System(settings.model_copy(update={"registry": registry}), known.redis_url)
    if "redis_url" in settings.model_fields_set:
        return System(settings, settings.redis_url.get_secret_value())
    raise Unavailable(f"Nothing runs on {settings.data_dir.resolve()}; start it with `mesh up`, or set REDIS_URL")
