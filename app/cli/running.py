"""Finds the running system that a command is to speak to, by its data directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from app import settings as settings_module
from app import telemetry
from app.dev import credentials, secrets, state
from app.dev.state import State
from app.errors import Unavailable
from app.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Of the running system [default: MESH_DATA_DIR, or .mesh/ here]."),
]


@dataclass(frozen=True, slots=True)
class System:
    """Where to ask: the Redis of the system, and the settings of this shell with its namespace and its token."""

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
        return System(_as_in(known, settings), known.redis_url)
    if "redis_url" in settings.model_fields_set:
        return System(settings, settings.redis_url.get_secret_value())
    raise Unavailable(f"{_nothing_runs(settings)}, or set REDIS_URL")


def find_quietly(data_dir: Path | None) -> System:
    """As `find`; what is logged meanwhile is not for the terminal."""
    system = find(data_dir)
    telemetry.configure(system.settings.model_copy(update={"log_level": "error"}), service="cli", instance="cli")
    return system


def supervised(data_dir: Path | None) -> State:
    """The system that `mesh up` started on the data directory.

    Raises:
        Unavailable: there is none.
    """
    settings = load_settings(data_dir)
    known = state.running(settings.data_dir)
    if known is None:
        raise Unavailable(_nothing_runs(settings))
    return known


def issuing(data_dir: Path | None) -> Settings:
    """The settings of this shell, with the issuer of what runs on the data directory, else that of MESH_AUTH__ISSUER.

    Raises:
        Unavailable: nothing runs there, and the issuer is not named.
    """
    settings = load_settings(data_dir)
    known = state.running(settings.data_dir)
    if known is not None:
        return _as_in(known, settings)
    if credentials.ISSUER in map(str.upper, os.environ):
        return settings
    raise Unavailable(f"{_nothing_runs(settings)}, or set {credentials.ISSUER}")


def joining(settings: Settings) -> tuple[Settings, State | None]:
    """The settings of a process that is to join what runs on its data directory, unless REDIS_URL names a Redis."""
    known = state.running(settings.data_dir)
    if known is None or "redis_url" in settings.model_fields_set:
        return settings, None
    return _as_in(known, settings).model_copy(update={"redis_url": SecretStr(known.redis_url)}), known


def _as_in(known: State, settings: Settings) -> Settings:
    registry = settings.registry.model_copy(update={"namespace": known.namespace})
    token = SecretStr(known.management_token) if known.management_token else settings.management_token
    system = settings.model_copy(update={"registry": registry, "management_token": token})
    if settings.env == "production":
        return system
    demo = None if settings.service is None else secrets.read(settings.secrets_file)
    own = credentials.variables(settings.service or "", issuer=known.url, known=demo, given=os.environ)
    return credentials.told(system, own)


def _nothing_runs(settings: Settings) -> str:
    return f"Nothing runs on {settings.data_dir.resolve()}; start it with `mesh up`"
