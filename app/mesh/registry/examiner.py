"""Looks after suspects, while there are any: asks who must be asked, and has dropped whom the evidence says is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from app import telemetry
from app.mesh.observer import Decision, Observer
from app.mesh.registry import view
from app.mesh.registry.inquiry import Inquiry
from app.mesh.registry.view import Key, Verdict, View
from app.settings import RegistrySettings

_log = telemetry.log("mesh.suspects")

# However many ask: a suspect is not to be probed more often than so many times a second by all of them together.
_PROBES_A_SECOND = 100


class Suspecting(Protocol):
    """The directory, as the examiner sees it."""

    @property
    def view(self) -> View:
        """What it believes now."""

    @property
    def healthy_since(self) -> float | None:
        """Since when (monotonic seconds) the registry has answered; None while it is away."""

    def drop(self, keys: Sequence[Key], /) -> None:
        """Forget these."""


class Examiner:
    """Args: clock: monotonic seconds."""

    def __init__(
        self, inquiry: Inquiry, *, settings: RegistrySettings, observer: Observer, clock: Callable[[], float]
    ) -> None:
        self._inquiry, self._settings, self._observer, self._clock = inquiry, settings, observer, clock
        self._suspicion = asyncio.Event()

    def wake(self) -> None:
        """There are suspects."""
        self._suspicion.set()

    def expired(self, key: Key) -> None:
        """This one has just become one."""
        self._decided(key, "expired")

    async def watch_over(self, directory: Suspecting) -> None:
        """Runs for as long as the directory does."""
        while True:
            await self._suspicion.wait()
            try:
                await self.examine(directory)
            except Exception:  # noqa: BLE001  # a defect must not keep suspects for the rest of the process's life
                _log.exception("examination of suspects failed")
            await asyncio.sleep(self._settings.heartbeat_seconds / 5)

    async def examine(self, directory: Suspecting, /) -> None:
        """One round."""
        verdict = self._judge(directory)
        if verdict.ask:
            for peer in await self._inquiry.ask(verdict.ask):
                self._decided((peer.service, peer.id), "alive")
            verdict = self._judge(directory)
        if verdict.gone:
            self._drop(directory, verdict.gone)
        if not directory.view.suspects:
            self._suspicion.clear()
        self._inquiry.forget_all_but({instance_id for _, instance_id in directory.view.suspects})

    def _judge(self, directory: Suspecting) -> Verdict:
        return view.judge(
            directory.view,
            self._inquiry.evidence,
            self._clock(),
            healthy_since=directory.healthy_since,
            grace_seconds=self._settings.lease_seconds,
            ask_again_seconds=max(self._settings.heartbeat_seconds, len(directory.view) / _PROBES_A_SECOND),
        )

    def _drop(self, directory: Suspecting, keys: Sequence[Key]) -> None:
        for key in keys:
            self._decided(key, "gone")
        _log.info("peers dropped: neither registered nor there", instances=[instance_id for _, instance_id in keys])
        directory.drop(keys)

    def _decided(self, key: Key, outcome: Literal["expired", "alive", "gone"]) -> None:
        service, instance_id = key
        self._observer.decision(Decision("suspect", service, outcome, instance_id))
