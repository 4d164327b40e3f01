"""A distributed lock: one block at a time in the whole fleet, over the lease of its name."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app import context
from app.errors import NotAcquired
from app.mesh.coordination.lease import Held, Lease
from app.mesh.coordination.line import Line
from app.mesh.keys import Keys
from app.mesh.observer import Decision, Observer

# Between two tries: growing, with full jitter, so that those who wait do not come in step.
_PAUSE_SECONDS = (0.005, 0.25)


@asynccontextmanager
async def mesh_lock(
    name: str,
    *,
    ttl: float,
    wait: float,
    line: Line,
    keys: Keys,
    observer: Observer,
    clock: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
) -> AsyncIterator[Held]:
    """Hold the lock `name` for the length of the block; it is renewed in the background.

    There is no order among those who wait. The block is cancelled when the lock is lost.

    Args:
        name: a short one of bounded variety, as in ``"invoices"``; ``"invoice:7"`` counts as ``invoice`` in metrics.
        ttl: seconds after which a holder that has vanished is one no more.
        wait: the longest to wait for it, in seconds; a request's deadline may cut it short. 0: one try.

    Raises:
        NotAcquired: somebody else had it all the time.
        LeaseLost: at the end of the block: it was lost meanwhile.
        Unavailable: Redis is away.
    """
    rng = rng or random.Random()
    lease = Lease(name, ttl_seconds=ttl, line=line, keys=keys, clock=clock, rng=rng)
    subject = name.partition(":")[0]
    try:
        held = await _acquired(lease, _patience(wait), clock, rng)
    except NotAcquired:
        observer.decision(Decision("lock", subject, "not_acquired"))
        raise
    observer.decision(Decision("lock", subject, "acquired", detail=str(held.token)))
    try:
        async with lease.keeping(held):
            yield held
    finally:
        if held.lost:
            observer.decision(Decision("lock", subject, "lost", detail=str(held.token)))


async def _acquired(lease: Lease, patience: float, clock: Callable[[], float], rng: random.Random) -> Held:
    until = clock() + patience
    ceiling, longest = _PAUSE_SECONDS
    while True:
        found = await lease.acquire()
        if isinstance(found, Held):
            return found
        left = until - clock()
        if left <= 0:
            raise NotAcquired(f"The lock {lease.name} is held by somebody else", retry_after=max(found, 1.0))
        await asyncio.sleep(min(left, rng.uniform(0, ceiling)))
        ceiling = min(longest, ceiling * 2)


def _patience(wait: float) -> float:
    current = context.current()
    return wait if current is None else max(0.0, min(wait, current.remaining_seconds()))
