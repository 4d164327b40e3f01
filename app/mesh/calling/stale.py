"""The last good replies, for the time in which their service fails: bounded in bytes, the longest unused goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

from app.mesh.calling.reply import Reply

# What an entry costs besides its body: key, headers, the entry itself.
_OVERHEAD_BYTES = 2048
# One entry may be so much of it all, or it would drive out too many others.
_LARGEST_SHARE = 1 / 8


class Shelf:
    """Replies by key, and when they came. Times are monotonic seconds, given by the caller."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: OrderedDict[Hashable, tuple[float, Reply]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Shelf {len(self._kept)} replies, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, key: Hashable, reply: Reply, now: float) -> None:
        """Remember `reply`, unless it is too large or its sender forbids it."""
        self._drop(key)
        size = _size(reply)
        if size > self._max_bytes * _LARGEST_SHARE or "no-store" in reply.headers.get("cache-control", "").lower():
            return
        self._kept[key] = (now, reply)
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def find(self, key: Hashable, now: float, *, no_older_than: float) -> Reply | None:
        """The reply kept for `key`, marked as stale, if it came within the last `no_older_than` seconds."""
        came_at, reply = self._kept.get(key, (0.0, None))
        if reply is None or now - came_at > no_older_than:
            return None
        self._kept.move_to_end(key)
        return replace(reply, fallback="stale")

    def _drop(self, key: Hashable) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self._bytes -= _size(entry[1])


def _size(reply: Reply) -> int:
    return len(reply.body) + _OVERHEAD_BYTES
