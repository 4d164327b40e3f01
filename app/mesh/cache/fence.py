"""What was invalidated while something was being loaded: a load that began before is not to be kept after. No I/O.

Moments are counted, not timed: each invalidation is one tick. Only while somebody loads is there anything to remember,
so the last one to leave empties it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

_MOST_NAMES = 10_000


class Fence:
    """Args: most: names remembered one by one; beyond that, all that is being loaded counts as invalidated."""

    def __init__(self, *, most: int = _MOST_NAMES) -> None:
        self._most = most
        self._tick = 0
        self._all = 0
        self._last: dict[str, int] = {}
        self._open = 0

    def __repr__(self) -> str:
        return f"<Fence {self._open} open, {len(self._last)} names>"

    def open(self) -> int:
        """Remember invalidations from now on, until as many `close` as `open` were called; returns this moment."""
        self._open += 1
        return self._tick

    def close(self) -> None:
        self._open -= 1
        if not self._open:
            self._last.clear()

    @contextmanager
    def opened(self) -> Iterator[int]:
        """`open` and `close` around a block; yields the moment."""
        try:
            yield self.open()
        finally:
            self.close()

    def invalidated(self, names: Iterable[str]) -> None:
        self._tick += 1
        if not self._open:
            return
        for name in names:
            self._last[name] = self._tick
        if len(self._last) > self._most:
            self.everything()

    def everything(self) -> None:
        """Whatever is being loaded may be old."""
        self._tick += 1
        self._all = self._tick
        self._last.clear()

    def broken(self, names: Collection[str], since: int) -> bool:
        """Whether one of `names` was invalidated after the moment `since`, which must still be open."""
        if self._all > since:
            return True
        last = self._last
        return bool(last) and any(last.get(name, 0) > since for name in names)
