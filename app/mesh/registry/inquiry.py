"""What is found out about suspects besides the registry's word: by traffic, which costs nothing, and by a few probes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Literal

from app.mesh.registry.record import Instance
from app.mesh.registry.view import Evidence

# alive: it answered in its own name. gone: nobody is there, or somebody else. silent: no answer, which may be our fault.
Answer = Literal["alive", "gone", "silent"]
Probe = Callable[[Instance], Awaitable[Answer]]
LastSuccess = Callable[[str], float | None]

_AT_ONCE = 16
_IN_ONE_GO = 64
_NEVER = float("-inf")


class Inquiry:
    """Remembers the evidence for and against each suspect.

    Args:
        probe: asks a peer who it is; raises nothing.
        last_success: when a peer, by its id, last answered one of our requests (monotonic seconds).
        clock: monotonic seconds, the same as that of `last_success`.
    """

    def __init__(
        self, probe: Probe, *, last_success: LastSuccess = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe, self._last_success, self._clock = probe, last_success, clock
        self._found: dict[str, Evidence] = {}
        self._silent: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def evidence(self, peer: Instance) -> Evidence:
        """All that is known of `peer`, for `view.judge`."""
        found = self._found.get(peer.id, Evidence())
        success = self._last_success(peer.id)
        return found if success is None or success <= found.alive_at else replace(found, alive_at=success)

    async def ask(self, peers: Sequence[Instance]) -> list[Instance]:
        """Probe the first few of `peers`, a bounded number at the same time; returns those that are alive."""
        asked = peers[:_IN_ONE_GO]
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(self._ask(peer)) for peer in asked]
        return [peer for peer, answer in zip(asked, answers, strict=True) if answer.result() == "alive"]

    def forget_all_but(self, ids: Collection[str]) -> None:
        """Whoever is no suspect any more begins anew."""
        self._found = {id_: found for id_, found in self._found.items() if id_ in ids}
        self._silent.intersection_update(ids)

    async def _ask(self, peer: Instance) -> Answer:
        async with self._slots:
            answer = await self._probe(peer)
        now = self._clock()
        found = replace(self._found.get(peer.id, Evidence()), asked_at=now)
        if answer == "alive":
            found = replace(found, alive_at=now)
        elif answer == "gone" or peer.id in self._silent:
            # One silence may be ours, or a moment's: the second in a row counts.
            found = replace(found, gone_at=now)
        self._silent.discard(peer.id)
        if answer == "silent":
            self._silent.add(peer.id)
        self._found[peer.id] = found
        return answer
