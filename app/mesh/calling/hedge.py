"""Two runners for one call: the second starts only if the first is late, and the loser is called back.

After "The Tail at Scale" (Dean and Barroso, 2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

from app.mesh.calling.reply import Reply

Run = Callable[[], Coroutine[Any, Any, Reply]]


class Winner(Enum):
    """Whose reply it is."""

    ALONE = "alone"
    FIRST = "first"
    SECOND = "second"


async def race(first: Run, second: Callable[[], Run | None], *, after_seconds: float) -> tuple[Reply, Winner]:
    """The first good reply; if there is none, what the first runner has to say.

    Nobody runs on when this returns or is cancelled.

    Args:
        second: asked when the first is late; None if there is to be no second one.

    Raises:
        MeshError: the first runner's, if none has a reply.
    """
    runners = [asyncio.create_task(first(), name="mesh.call")]
    try:
        await asyncio.wait(runners, timeout=after_seconds)
        other = None if runners[0].done() else second()
        if other is None:
            return await runners[0], Winner.ALONE
        runners.append(asyncio.create_task(other(), name="mesh.hedge"))
        return await _first_good(*runners)
    finally:
        await _call_back([runner for runner in runners if not runner.done()])
        for runner in runners:
            _retrieve(runner)


async def _first_good(first: asyncio.Task[Reply], second: asyncio.Task[Reply]) -> tuple[Reply, Winner]:
    pending: set[asyncio.Task[Reply]] = {first, second}
    while pending:
        _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for runner, winner in ((first, Winner.FIRST), (second, Winner.SECOND)):
            if runner.done() and _is_good(runner):
                return runner.result(), winner
    return first.result(), Winner.FIRST


def _is_good(runner: asyncio.Task[Reply]) -> bool:
    return not runner.cancelled() and runner.exception() is None and runner.result().status < 500


async def _call_back(runners: list[asyncio.Task[Reply]]) -> None:
    """Cancel them, and wait until what they held is given back."""
    for runner in runners:
        runner.cancel()
    if runners:
        await asyncio.wait(runners)


def _retrieve(runner: asyncio.Task[Reply]) -> None:
    """An exception of a loser's that nobody wants to hear is no reason for a warning."""
    if runner.done() and not runner.cancelled():
        runner.exception()
