"""Sessions that have ended before their tokens: a short list, since a token lives for minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Revocations:
    """The sessions whose tokens count no more.

    Args:
        clock: seconds of the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, session: str) -> bool:
        return session in self._until

    def heard(self, notices: Mapping[str, float]) -> None:
        """These sessions have ended.

        Args:
            notices: session → until when, in seconds of the epoch, a token of it could still be valid.
        """
        now = self._clock()
        self._until.update(notices)
        for session in [session for session, until in self._until.items() if until <= now]:
            del self._until[session]
