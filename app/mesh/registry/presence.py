"""This process in the registry: registered while the block lasts, renewed from a thread of its own.

The thread has its own blocking Redis client: a busy event loop delays no beat, and a hung Redis delays no loop. A
loop that has stood still for a whole lease is another matter: the record then says ``forced-out`` until it moves.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from app import telemetry
from app.errors import Unavailable
from app.mesh.keys import Keys
from app.mesh.observer import Observer, RegistryContact
from app.mesh.registry import operations
from app.mesh.registry.operations import Beat, Position
from app.mesh.registry.record import Instance, Load, State
from app.mesh.registry.runner import BlockingRegistry
from app.settings import RegistrySettings

_log = telemetry.log("mesh.presence")

_JITTER = 0.1
# A failed beat is repeated sooner than the next regular one: half of a lease must survive a blip.
_REPEAT_SECONDS = 0.5
_FIRST_BEAT_SECONDS = 2.0
_LEAVE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Told:
    """What a beat told the registry, and what that answered; None if it was away.

    Args:
        change: the beat held what this call of `Presence.set_state` had set.
    """

    change: int
    beat: Beat | None


class Presence:
    """Use as an async context manager; entering waits for the first beat, but not for a Redis that is away.

    Args:
        load: called from the thread before every beat: must only read.
        seen: what this process's directory has applied; as `load`.
        told: called from the thread after every beat.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        redis_url: str,
        settings: RegistrySettings,
        observer: Observer,
        load: Callable[[], Load],
        seen: Callable[[], Position],
        told: Callable[[Told], None] = lambda _: None,
        rng: random.Random | None = None,
    ) -> None:
        # One value, since the thread must see both or neither.
        self._current = instance, 0
        self._settings, self._observer = settings, observer
        self._load, self._seen, self.told = load, seen, told
        self._keys = Keys(settings.namespace)
        self._registry = BlockingRegistry(redis_url)
        self._rng = rng or random.Random()
        self._wake, self._stopping, self._first = threading.Event(), threading.Event(), threading.Event()
        self._healthy: bool | None = None
        self._refused = False
        self._thread = threading.Thread(target=self._live, name="mesh.presence", daemon=True)

    def __repr__(self) -> str:
        contact = {None: "not yet registered", True: "registered", False: "registry away"}[self._healthy]
        return f"<Presence {self.instance.id} {self.instance.state}, {contact}>"

    @property
    def instance(self) -> Instance:
        return self._current[0]

    def set_state(self, state: State) -> int:
        """Change the announced state; a beat follows at once. Returns a number that grows with each call: see `Told`."""
        instance, change = self._current
        self._current = replace(instance, state=state), change + 1
        self._wake.set()
        return change + 1

    def beat_soon(self) -> None:
        """Send a beat now and not only when the next one is due; several such calls make one beat."""
        self._wake.set()

    async def __aenter__(self) -> Self:
        self._thread.start()
        await asyncio.to_thread(self._first.wait, _FIRST_BEAT_SECONDS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._wake.set()
        await asyncio.to_thread(self._thread.join, _LEAVE_SECONDS)

    # ------------------------------------------------------------------------------------- in the thread

    def _live(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                self._guarded(self._beat)
                self._first.set()
                self._wake.wait(pause_seconds(self._settings, healthy=bool(self._healthy), rng=self._rng))
            self._guarded(self._leave)
        finally:
            self._registry.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Unavailable as error:
            self._contact(healthy=False, reason=str(error))
        except Exception:  # noqa: BLE001  # a defect in one beat must not end all: we would vanish while we work
            _log.exception("presence step failed", instance=self.instance.id)

    def _beat(self) -> None:
        load, seen = self._load(), self._seen()
        instance, change = self._current
        record = announced(instance, load, self._settings.lease_seconds)
        try:
            beat = self._registry.run(operations.heartbeat(self._keys, self._settings, record, load, seen))
        except Unavailable:
            self.told(Told(change, None))
            raise
        self._contact(healthy=True)
        self._note_refusal(refused=beat.outcome == "refused")
        self.told(Told(change, beat))
        if beat.sweep_due:
            self._sweep()

    def _sweep(self) -> None:
        swept = self._registry.run(operations.sweep(self._keys, self._settings))
        if swept.removed:
            _log.info("expired instances taken out", removed=[instance_id for _, instance_id in swept.removed])
        if swept.outcome == "held":
            _log.warning("registry was away: all leases extended")

    def _leave(self) -> None:
        self._registry.run(operations.deregister(self._keys, self._settings, self.instance))

    def _contact(self, *, healthy: bool, reason: str = "") -> None:
        if healthy == self._healthy:
            return
        self._healthy = healthy
        self._observer.registry_contact(RegistryContact("presence", healthy=healthy))
        if not healthy:
            _log.warning("heartbeat failed; trying on", instance=self.instance.id, reason=reason)

    def _note_refusal(self, *, refused: bool) -> None:
        if refused and not self._refused:
            _log.error("heartbeat refused: a newer process has this id, or it has left", instance=self.instance.id)
        self._refused = refused


def announced(instance: Instance, load: Load, lease_seconds: float) -> Instance:
    """What the record says: a ready instance whose loop has stood still for a lease is not ready."""
    if instance.state == "ready" and load.loop_lag_seconds >= lease_seconds:
        return replace(instance, state="forced-out")
    return instance


def pause_seconds(settings: RegistrySettings, *, healthy: bool, rng: random.Random) -> float:
    """Time to the next beat: the regular one ± 10 %, or a soon one after a failure."""
    regular = settings.heartbeat_seconds if healthy else min(_REPEAT_SECONDS, settings.heartbeat_seconds)
    return regular * rng.uniform(1 - _JITTER, 1 + _JITTER)
