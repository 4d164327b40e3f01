"""A read replica that is asked while it answers, and left alone for a while when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from app import telemetry
from app.data.faults import Away, Contended, Lost
from app.data.replica import Replica
from app.data.sessions import Sessions
from app.errors import Unavailable

_log = telemetry.log("data.follower")


class Follower:
    """A replica: its sessions, and whether it is asked.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, sessions: Sessions, clock: Callable[[], float]) -> None:
        self.sessions = sessions
        self.state = Replica(clock)
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Follower {self.sessions.pool}, {self.state}>"

    async def has_connection(self) -> bool:
        """Whether it may be asked, and there is a connection to it."""
        if not self.state.permit():
            return False
        try:
            async with self.reading() as session:
                await session.connection()
        except (Away, Lost):
            return False
        return True

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """As of `Sessions`, for who has its permission; what comes of it decides whether it is asked again."""
        began = self._clock()
        try:
            async with self.sessions.reading() as session:
                yield session
        except (Away, Lost) as error:
            self._failed(error)
            raise
        except Contended:
            # It stands in the way of what it is to replay: it lives.
            self.state.succeeded()
            raise
        except Unavailable as error:
            # A query may be slow; a server that has answered nobody meanwhile is gone.
            if self.sessions.pool.answered_at < began:
                self._failed(error)
            raise
        self.state.succeeded()

    def _failed(self, error: Unavailable) -> None:
        if self.state.is_asked:
            _log.warning("the replica does not answer; reads go to the primary", error=repr(error))
        self.state.failed()
