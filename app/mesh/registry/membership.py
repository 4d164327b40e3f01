"""This process's own side of the registry: it registers, drains until every caller has heard of it, and leaves.

    starting ──register──► ready ──drain──► draining ──leave──► gone
                             ▲                 │
                             └───set_state─────┘

The acknowledged drain: the change to ``draining`` has a position in the registry's history. Every instance's heartbeat
carries the position that its directory has applied, and one that hears of a drain beats at once; so it is known when the
last caller has stopped picking this instance. Nobody waits for a caller whose lease is over, nor longer than asked for.
While Redis is away nobody can be asked: then a short fixed time passes instead, since replies say ``x-mesh-draining``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from app import telemetry
from app.errors import Unavailable
from app.mesh.keys import Keys
from app.mesh.observer import Decision, Observer
from app.mesh.registry import operations
from app.mesh.registry.operations import Position, Wish, WishedState
from app.mesh.registry.presence import Presence, Told
from app.mesh.registry.record import Instance
from app.mesh.registry.runner import Registry
from app.mesh.registry.view import Key

_log = telemetry.log("mesh.membership")

# For what peers learn from our replies alone, when the registry is away.
NOTICE_SECONDS = 0.5

_ASK_AGAIN_SECONDS = (0.01, 0.25)
# Of a fleet of ten thousand, all of which hear of one drain at once, this makes half a second of heartbeats.
_ACKNOWLEDGEMENTS_A_SECOND = 20_000
_WISHES_REMEMBERED = 32

WishCallback = Callable[[WishedState], None]


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended.

    Args:
        acknowledged: everybody has heard of it.
        waiting_for: otherwise, who has not, as ``<service>:<id>``, at most twenty; empty if nobody could be asked.
        seconds: how long it took.
    """

    acknowledged: bool
    waiting_for: tuple[str, ...]
    seconds: float


class Membership:
    """This process in the registry. All of it runs on the event loop; `presence` has its own thread.

    Args:
        presence: not yet entered; its `told` becomes this object's.
        registry: asks who has not heard of a drain.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        presence: Presence,
        *,
        registry: Registry,
        keys: Keys,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._presence, self._registry, self._keys, self._observer = presence, registry, keys, observer
        self._clock, self._rng = clock, rng or random.Random()
        self._loop = asyncio.get_running_loop()
        self._registered = False
        self._announced: tuple[int, Position] = (-1, Position())
        self._away = False
        self._heard = asyncio.Event()
        self._acknowledging: asyncio.TimerHandle | None = None
        self._on_wish: WishCallback | None = None
        self._wished: WishedState | None = None
        self._obeyed: deque[str] = deque(maxlen=_WISHES_REMEMBERED)
        presence.told = self._told_from_thread

    def __repr__(self) -> str:
        return f"<Membership {self._presence!r}>"

    @property
    def instance(self) -> Instance:
        """This process's own record, as it announces itself."""
        return self._presence.instance

    async def register(self) -> None:
        """Announce this process as ready, and keep on doing so; a Redis that is away is no error."""
        if self._registered:
            return
        self._registered = True
        self._presence.set_state("ready")
        await self._presence.__aenter__()

    def set_state(self, state: WishedState) -> None:
        """Change the announced state; peers hear of it at once."""
        self._presence.set_state(state)

    async def leave(self) -> None:
        """Take this process out of the registry, if it was registered; a Redis that is away is no error."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        if self._registered:
            self._registered = False
            await self._presence.__aexit__(None, None, None)

    def on_wish(self, callback: WishCallback) -> None:
        """Call `callback` when an operator wants this instance to be ``draining`` or ``ready``; soon, if one does."""
        self._on_wish = callback
        if self._wished is not None:
            callback(self._wished)

    # ------------------------------------------------------------------------------------- draining

    async def drain(self, within_seconds: float) -> Drained:
        """Announce that this instance drains, and wait until nobody picks it any more, or `within_seconds` are over.

        It goes on serving meanwhile. Setting the state to ``ready`` again ends the wait.
        """
        began = self._clock()
        if not self._registered:
            return Drained(acknowledged=True, waiting_for=(), seconds=0.0)
        change = self._presence.set_state("draining")
        try:
            waiting_for = await self._wait_for_all(change, began + within_seconds)
        except Unavailable:
            await asyncio.sleep(max(0.0, min(NOTICE_SECONDS, began + within_seconds - self._clock())))
            return self._ended("registry_away", (), began)
        if self.instance.state != "draining":
            return self._ended("called_off", waiting_for, began)
        return self._ended("timed_out" if waiting_for else "acknowledged", waiting_for, began)

    async def _wait_for_all(self, change: int, end: float) -> tuple[str, ...]:
        """Returns who has not heard of it in time. Raises: Unavailable."""
        pause, longest = _ASK_AGAIN_SECONDS
        waiting_for: tuple[str, ...] = ("registry",)
        while self.instance.state == "draining":
            position = await self._announcement(change, end)
            if position is not None:
                waiting_for = await self._laggards(position, end)
            left = end - self._clock()
            if not waiting_for or left <= 0:
                break
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, longest)
        return waiting_for

    async def _announcement(self, change: int, end: float) -> Position | None:
        """Where in the history that change of ours stands; None if the time is over. Raises: Unavailable."""
        while self._announced[0] < change:
            if self._away:
                raise Unavailable("Registry away: nobody can be told")
            self._heard.clear()
            try:
                async with asyncio.timeout(end - self._clock()):
                    await self._heard.wait()
            except TimeoutError:
                return None
        return self._announced[1]

    async def _laggards(self, position: Position, end: float) -> tuple[str, ...]:
        own = (self.instance.service, self.instance.id)
        asked = operations.laggards(self._keys, position.epoch, position.seq, mark=position.mark, but=own)
        answer = await self._registry.run(asked, within_seconds=max(0.05, end - self._clock()))
        if answer.known:
            return answer.names
        # Another history, flushed or restored, which does not know that we drain.
        self._presence.beat_soon()
        return ("registry",)

    def _ended(self, outcome: str, waiting_for: tuple[str, ...], began: float) -> Drained:
        drained = Drained(outcome == "acknowledged", waiting_for, self._clock() - began)
        own = self.instance
        self._observer.decision(Decision("drain", own.service, outcome, own.id, " ".join(waiting_for)))
        _log.info("drain announced", outcome=outcome, waiting_for=waiting_for, seconds=round(drained.seconds, 3))
        return drained

    # ------------------------------------------------------------------------------------- what is heard

    def progress_wanted(self, instances: int) -> None:
        """Say soon how far our directory has come, by a heartbeat. The larger the fleet, the more spread out.

        After a break in history it also brings us back if we were lost, and a wish that stood in what was skipped.
        """
        if self._registered and self._acknowledging is None:
            spread = self._rng.uniform(0, instances / _ACKNOWLEDGEMENTS_A_SECOND)
            self._acknowledging = self._loop.call_later(spread, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = None
        self._presence.beat_soon()

    def wish_heard(self, key: Key, wish: Wish) -> None:
        """An operator wants something of somebody; of us, perhaps."""
        if key == (self.instance.service, self.instance.id):
            self._obey(wish)

    def _told_from_thread(self, told: Told) -> None:
        # The loop may be closed already: then nobody listens any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note, told)

    def _note(self, told: Told) -> None:
        beat = told.beat
        self._away = beat is None
        if beat is not None and beat.outcome != "refused":
            if beat.outcome == "changed" or told.change > self._announced[0]:
                self._announced = (told.change, beat.position)
            if beat.wish is not None:
                self._obey(beat.wish)
        self._heard.set()

    def _obey(self, wish: Wish) -> None:
        """Once for each wish: it is heard of from the log, and again with every heartbeat."""
        if wish.generation != self.instance.generation or wish.mark in self._obeyed:
            return
        self._obeyed.append(wish.mark)
        self._wished = wish.state
        _log.info("an operator's wish", state=wish.state, instance=self.instance.id)
        self._observer.decision(Decision("drain", self.instance.service, f"wish_{wish.state}", self.instance.id))
        if self._on_wish is not None:
            self._on_wish(wish.state)
