"""A rolling restart: one replica at a time, its successor first, so that there is never one less to take requests.

    successor starts ─► ready, and in the registry ─► predecessor drains and ends ─► the next
           └── ends, or takes too long: the rollout ends here, and the predecessor serves on

The predecessor drains by itself on SIGTERM: it stays until its callers have acknowledged that it leaves, and whoever
knows that knows its successor too, since the registry's history is one line. A gateway's successor serves the same
public socket, whose queue outlives either of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.dev import boot
from app.dev.boot import BootFailed
from app.dev.events import Event, Report
from app.dev.fleet import Fleet
from app.dev.keeper import Keeper
from app.errors import Conflict, NotFound
from app.settings import RegistrySettings


class Roller:
    """Replaces replicas of `fleet`; one rollout at a time."""

    def __init__(self, fleet: Fleet, *, redis_url: str, settings: RegistrySettings) -> None:
        self._fleet = fleet
        self._redis_url, self._settings = redis_url, settings
        self._at_work: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Roller, {'rolling ' + ', '.join(self._at_work) if self._at_work else 'idle'}>"

    async def roll(self, services: Sequence[str], report: Report, enough: asyncio.Event) -> int:
        """Replace all replicas of `services`; when `enough` is set, stop after the one at hand.

        Returns:
            How many were replaced.

        Raises:
            NotFound: one of them has no replica here.
            Conflict: another rollout is under way.
            BootFailed: a successor did not become ready; its predecessor serves on, and those behind it too.
        """
        with self._alone(services):
            keepers = [keeper for service in self._at_work for keeper in self._fleet.of(service)]
            for number, keeper in enumerate(keepers, 1):
                if enough.is_set():
                    return number - 1
                await self._replace(keeper, _Steps(report, f"{keeper.replica.name} ({number}/{len(keepers)})"))
            return len(keepers)

    @contextmanager
    def _alone(self, services: Sequence[str]) -> Iterator[None]:
        if self._at_work:
            raise Conflict(f"A rollout of {', '.join(self._at_work)} is under way")
        known = self._fleet.services
        for service in services:
            if service not in known:
                raise NotFound(f"No replica of {service!r} runs here; there are: {', '.join(known)}")
        self._at_work = tuple(dict.fromkeys(services))
        try:
            yield
        finally:
            self._at_work = ()

    async def _replace(self, keeper: Keeper, steps: _Steps) -> None:
        began = time.monotonic()
        steps.step("a successor starts")
        successor = self._fleet.start_successor(keeper)
        try:
            await boot.until_ready([successor], redis_url=self._redis_url, settings=self._settings)
        except BootFailed:
            await self._fleet.give_up(successor)
            steps.note(f"given up; pid {keeper.pid} serves on")
            raise
        old = keeper.pid
        steps.step(f"pid {successor.pid} is ready, pid {old} drains")
        gracefully = await self._fleet.replace(keeper, successor)
        how = "" if gracefully else ", which had to be killed,"
        steps.note(f"pid {successor.pid} has taken the place of {old}{how} in {time.monotonic() - began:.1f} s")


class _Steps:
    """News of one replica's replacement, under its name."""

    def __init__(self, report: Report, name: str) -> None:
        self._report, self._name = report, name

    def step(self, text: str) -> None:
        self._report(Event(kind="step", text=f"{self._name}: {text}"))

    def note(self, text: str) -> None:
        self._report(Event(kind="note", text=f"{self._name}: {text}"))
