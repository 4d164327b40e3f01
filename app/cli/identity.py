"""Opens identity's database for the commands that administer it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from app import telemetry
from app.cli.running import load_settings
from app.data import Database, migrations
from app.errors import Unavailable
from app.service import IDENTITY, load
from app.settings import Settings

T = TypeVar("T")


def settings_for(data_dir: Path | None) -> Settings:
    """The settings of this shell; what is logged meanwhile is not for the terminal."""
    settings = load_settings(data_dir)
    telemetry.configure(settings.model_copy(update={"log_level": "error"}), service="cli", instance="cli")
    return settings


def run(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Carry out `work` on identity's database.

    Raises:
        Unavailable: its tables are not there, or older than this code; or what `work` raises.
    """
    return asyncio.run(_run(settings, work))


async def _run(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    url = settings.database_url_of(IDENTITY)
    if (await migrations.status(load(IDENTITY), url)).pending:
        raise Unavailable(f"The tables of {IDENTITY} are not up to date: `mesh db upgrade {IDENTITY}`")
    database = Database(url, settings.data)
    try:
        return await work(database)
    finally:
        await database.close()
