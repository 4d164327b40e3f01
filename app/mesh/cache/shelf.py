"""What this process keeps, what it must not keep any more, and what it has counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from app.mesh.cache.entry import Entry
from app.mesh.cache.fence import Fence
from app.mesh.cache.local import LocalTier
from app.mesh.cache.plan import names as names_of
from app.mesh.cache.remote import EVERYTHING, KEY, TAG
from app.mesh.observer import Decision, Observer
from app.settings import CacheSettings

# Metrics are by name: a caller that makes one up for each key must not make one time series for each.
_MOST_NAMES = 200
_OTHER = "other"


class Shelf:
    """The local tier behind its fence.

    Args:
        watched: whether all that others invalidate is heard. While it is not, an entry with tags is not kept at all, and
            one without lives for ``unwatched_seconds`` at most.
    """

    def __init__(
        self, settings: CacheSettings, *, observer: Observer, clock: Callable[[], float], watched: bool
    ) -> None:  # fmt: skip
        self._settings, self._observer, self._clock, self.watched = settings, observer, clock, watched
        self.local = LocalTier(most_entries=settings.max_entries, most_bytes=settings.max_bytes)
        self.fence = Fence()
        self.counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._names: set[str] = set()

    def __repr__(self) -> str:
        return f"<Shelf {self.local!r}{'' if self.watched else ', invalidations not heard'}>"

    def keep(self, entry: Entry, since: int) -> None:
        """Keep `entry`, unless it was invalidated after the moment `since`, or could have been, unheard."""
        if self.fence.broken(names_of(entry.key, entry.tags), since):
            return
        if not self.watched:
            if entry.tags:
                return
            entry.shorten(self._clock() + self._settings.unwatched_seconds)
        self.local.put(entry)

    def heard(self, names: Sequence[str]) -> None:
        """Somebody has invalidated `names`, here or elsewhere."""
        self.fence.invalidated(names)
        for name in names:
            if name == TAG + EVERYTHING:
                self.fence.everything()
                self.local.clear()
            elif name.startswith(TAG):
                self.local.drop_tagged(name.removeprefix(TAG))
            else:
                self.local.drop(name.removeprefix(KEY))

    def watching(self, *, on: bool) -> None:
        """From here on invalidations are heard, or not; what was kept before may be old in either case."""
        self.watched = on
        self.fence.everything()
        self.tell("invalidations", "heard" if on else "lost")
        if on:
            self.local.clear()
            return
        soon = self._clock() + self._settings.unwatched_seconds
        for entry in self.local.entries():
            if entry.tags:
                self.local.drop(entry.key)
            else:
                entry.shorten(soon)

    def tell(self, name: str, outcome: str, detail: str = "") -> None:
        """Count it, here and with the observer."""
        self.counts[name, outcome] += 1
        self._observer.decision(Decision("cache", name, outcome, "", detail))

    def short(self, name: str) -> str:
        """`name`, or ``other`` if there are too many."""
        if name not in self._names:
            if len(self._names) >= _MOST_NAMES:
                return _OTHER
            self._names.add(name)
        return name

    def outcomes(self) -> dict[str, dict[str, int]]:
        """How often which name had which outcome."""
        found: dict[str, dict[str, int]] = {}
        for (name, outcome), count in sorted(self.counts.items()):
            found.setdefault(name, {})[outcome] = count
        return found
