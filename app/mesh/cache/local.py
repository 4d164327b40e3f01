"""The tier in this process: bounded by entries and by bytes, the least recently used leaves first. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from app.mesh.cache.entry import Entry


class LocalTier:
    """Args: most_entries, most_bytes: its bounds; bytes as `Entry.size` counts them."""

    def __init__(self, *, most_entries: int, most_bytes: int) -> None:
        self._most_entries, self._most_bytes = most_entries, most_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._tagged: dict[str, set[str]] = {}
        self.bytes = 0
        # Bound methods: a hit is two calls and a comparison, and each look-up of a name counts.
        self._find, self._touch = self._entries.get, self._entries.move_to_end

    def __repr__(self) -> str:
        return f"<LocalTier {len(self)} of {self._most_entries} entries, {self.bytes} of {self._most_bytes} bytes>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        entry = self._find(key)
        if entry is not None:
            self._touch(key)
        return entry

    def put(self, entry: Entry) -> None:
        """Keep `entry`, unless it alone is more than all that may be kept; others make room."""
        self.drop(entry.key)
        if entry.size > self._most_bytes:
            return
        self._entries[entry.key] = entry
        self.bytes += entry.size
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(entry.key)
        while len(self._entries) > self._most_entries or self.bytes > self._most_bytes:
            self.drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.bytes -= entry.size
        for tag in entry.tags:
            keys = self._tagged[tag]
            keys.discard(key)
            if not keys:
                del self._tagged[tag]

    def drop_tagged(self, tag: str) -> None:
        for key in list(self._tagged.get(tag, ())):
            self.drop(key)

    def clear(self) -> None:
        self._entries.clear()
        self._tagged.clear()
        self.bytes = 0

    def entries(self) -> Collection[Entry]:
        """All of them, the least recently used first."""
        return list(self._entries.values())
