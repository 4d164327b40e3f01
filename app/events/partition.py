"""Which stream the events of a key are in: each service's events are spread over a few, and one process at a time handles one.

Events of a key share a slot, and so a partition: within it they keep their order. The slot is stored with the event; the
partition follows from it and from how many there are, so that their number may change (`events.partitions`).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection

SLOTS = 1024


def slot_of(key: str) -> int:
    """From 0 to ``SLOTS - 1``; the same for all time."""
    return zlib.crc32(key.encode()) % SLOTS


def owner_of(partition: int, members: Collection[str]) -> str | None:
    """Who of `members` should work on a partition (rendezvous hashing, Thaler and Ravishankar 1998); None if nobody is there.

    When a member comes or goes, only those partitions move that it gets or had.
    """
    return max(members, key=lambda member: _weight(partition, member), default=None)


def _weight(partition: int, member: str) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{partition}:{member}".encode(), digest_size=8).digest(), member
