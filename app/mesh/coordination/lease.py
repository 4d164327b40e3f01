"""A lease in Redis: at most one holder, a fencing token that only grows, renewed for as long as its block runs.

                    acquire                     renew answered
    NOBODY'S ─────────────────────────► HELD ───────────────────┐
       ▲                                 │ ▲                    │
       │ release; or its time is over    │ └────────────────────┘
       └─────────────────────────────────┤
                                         │ renew refused; or unanswered until its time is over
                                         ▼
                                       LOST: the block is cancelled, LeaseLost is raised at its end

A lease says who may; only the token makes sure of it: a holder that was paused (SIGSTOP, a long garbage collection)
learns of its loss late, and what it writes meanwhile carries a token that is smaller than its successor's. Whatever is
written under a lease should be refused by its store if it has seen a larger token (Kleppmann, "How to do distributed
locking", 2016).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from types import TracebackType

from app import telemetry
from app.errors import LeaseLost, Unavailable
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import FENCE_MS, Keys
from app.mesh.registry.directory import cancelled

_log = telemetry.log("mesh.lease")

_ACQUIRE = lines.load("app.mesh.coordination", "acquire")
_RENEW = lines.load("app.mesh.coordination", "renew")
_RELEASE = lines.load("app.mesh.coordination", "release")

# Of a lease: the regular pause between two renewals, and that after one that failed.
_RENEW_SHARE, _REPEAT_SHARE = 1 / 3, 1 / 20


class Held:
    """A lease in hand.

    Attributes:
        name: whose.
        token: larger than every earlier holder's; what it writes elsewhere should carry it.
    """

    __slots__ = ("_clock", "expires_at", "lost", "name", "token")

    def __init__(self, name: str, token: int, expires_at: float, clock: Callable[[], float]) -> None:
        self.name, self.token, self.expires_at = name, token, expires_at
        self.lost = False
        self._clock = clock

    def __repr__(self) -> str:
        state = "lost" if self.lost else f"for {self.remaining_seconds:.1f} s more"
        return f"<Held {self.name}, token {self.token}, {state}>"

    @property
    def remaining_seconds(self) -> float:
        """How long it is certainly ours, unless it is renewed; counted from before it was asked for."""
        return self.expires_at - self._clock()

    def check(self) -> None:
        """Raises: LeaseLost: somebody else may hold it now."""
        if self.lost or self.remaining_seconds <= 0:
            raise LeaseLost(f"The lease {self.name} was lost", retry_after=1.0)


class Lease:
    """One candidate for the lease of one name.

    Args:
        holder: who it is, for an operator who looks; a word, or nothing.

    Attributes:
        owner: what stands in Redis while it is ours; a script that reads it there acts only for its holder.
    """

    def __init__(
        self,
        name: str,
        *,
        ttl_seconds: float,
        line: Line,
        keys: Keys,
        holder: str = "",
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.name, self.ttl_seconds = name, ttl_seconds
        self._line, self._keys, self._clock, self._rng = line, keys, clock, rng or random.Random()
        self.owner = f"{holder} {os.urandom(10).hex()}".lstrip()

    async def acquire(self) -> Held | float:
        """One try. Returns the held lease, or the seconds after which the present one ends unless it is renewed.

        Raises:
            Unavailable: Redis is away.
        """
        asked = self._clock()
        keys = (self._keys.lock(self.name), self._keys.fence(self.name))
        args = (self.owner, self._ttl_ms, FENCE_MS)
        reply: list[int] = await self._line.run(_ACQUIRE, keys, args, undo=self.release)
        token, wait_ms = reply
        if not token:
            return max(0.0, wait_ms / 1000)
        return Held(self.name, token, asked + self.ttl_seconds, self._clock)

    async def renew(self, held: Held) -> bool:
        """Whether it is still ours, and now for a whole lease. Raises: Unavailable."""
        asked = self._clock()
        if not await self._line.run(_RENEW, (self._keys.lock(self.name),), (self.owner, self._ttl_ms)):
            return False
        held.expires_at = asked + self.ttl_seconds
        return True

    async def release(self) -> bool:
        """Give it back; whether it was still ours. Raises: Unavailable."""
        return bool(await self._line.run(_RELEASE, (self._keys.lock(self.name),), (self.owner,)))

    def keeping(self, held: Held) -> Keeping:
        """Renew `held` while the block runs, then give it back."""
        return Keeping(self, held, self._rng)

    @property
    def _ttl_ms(self) -> int:
        return max(1, int(self.ttl_seconds * 1000))


class Keeping:
    """Renews a lease in the background of its block, and cancels the block when it is lost."""

    def __init__(self, lease: Lease, held: Held, rng: random.Random) -> None:
        self._lease, self._held, self._rng = lease, held, rng
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Held:
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._renewing = asyncio.create_task(self._renew(), name=f"mesh.lease.{self._held.name}")
        return self._held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            await cancelled([self._renewing])
        if not self._held.lost:
            await self._give_back()
            return
        # A cancellation from outside must win: only ours may be hidden from the task, as asyncio.timeout does it.
        ours = self._task is not None and self._task.uncancel() <= self._cancelling
        if kind is None or (ours and kind is asyncio.CancelledError):
            raise LeaseLost(f"The lease {self._held.name} was lost", retry_after=1.0) from error

    async def _give_back(self) -> None:
        try:
            await self._lease.release()
        except Unavailable:
            _log.info("could not give a lease back; it lapses by itself", lease=self._held.name)

    async def _renew(self) -> None:
        held, ttl = self._held, self._lease.ttl_seconds
        pause = _RENEW_SHARE
        while True:
            await asyncio.sleep(min(ttl * pause * self._rng.uniform(0.9, 1.1), max(0.0, held.remaining_seconds)))
            if held.remaining_seconds <= 0:
                return self._lose("it was not renewed in time")
            try:
                async with asyncio.timeout(held.remaining_seconds):
                    renewed = await self._lease.renew(held)
            except (Unavailable, TimeoutError):
                pause = _REPEAT_SHARE
                continue
            if not renewed:
                return self._lose("somebody else has taken it, or Redis has lost it")
            pause = _RENEW_SHARE

    def _lose(self, reason: str) -> None:
        self._held.lost = True
        _log.warning("lease lost", lease=self._held.name, fencing=self._held.token, reason=reason)
        if self._task is not None:
            self._task.cancel()
