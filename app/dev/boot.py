"""Processes on their way up: waited for until all are ready, or one of them ends, or the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from app.dev import readiness
from app.dev.keeper import Keeper
from app.errors import PlatformError
from app.settings import RegistrySettings

START_SECONDS = 90.0
LOG_TAIL_LINES = 20


class BootFailed(PlatformError):
    """A process did not become ready; `tail` is the end of its log."""

    code, title = "boot_failed", "A process did not become ready"

    def __init__(self, detail: str, *, tail: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.tail = tail


async def until_ready(
    keepers: Sequence[Keeper],
    *,
    redis_url: str,
    settings: RegistrySettings,
    became_ready: Callable[[Keeper], None] = lambda keeper: None,
    within_seconds: float = START_SECONDS,
) -> None:
    """Return once all have started and are in the registry; their stage is then ``serving``.

    Raises:
        BootFailed: says which of them ended, or is late, with the end of its log.
    """
    ready: set[Keeper] = set()

    def note(keeper: Keeper) -> None:
        ready.add(keeper)
        became_ready(keeper)

    up = asyncio.create_task(
        readiness.wait(keepers, redis_url=redis_url, settings=settings, became_ready=note), name="readiness"
    )
    crashes = [asyncio.create_task(keeper.crashed.wait(), name="crash") for keeper in keepers]
    try:
        await asyncio.wait([up, *crashes], timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            raise _diagnosis(keepers, ready, within_seconds)
        up.result()
    finally:
        for task in (up, *crashes):
            task.cancel()
        await asyncio.gather(up, *crashes, return_exceptions=True)
    for keeper in keepers:
        keeper.stage = "serving"


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> tuple[str, ...]:
    """The last `lines` of a log."""
    try:
        return tuple(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ()


def _diagnosis(keepers: Sequence[Keeper], ready: set[Keeper], seconds: float) -> BootFailed:
    """What to say of the process that ended, or of the first that is not ready in time."""
    crashed = next((keeper for keeper in keepers if keeper.crashed.is_set()), None)
    if crashed is not None:
        return BootFailed(f"{crashed.replica.name} ended while starting; from {crashed.log}:", tail=tail(crashed.log))
    late = [keeper for keeper in keepers if keeper not in ready]
    if not late:
        return BootFailed(f"Not all processes are in the registry after {seconds:g} s")
    names = ", ".join(keeper.replica.name for keeper in late)
    return BootFailed(f"Not ready after {seconds:g} s: {names}; from {late[0].log}:", tail=tail(late[0].log))
