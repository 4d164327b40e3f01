"""One database of one process: a bounded pool, sessions that are one transaction each, and what is tried again.

what is lost, or in the way                  a read (`read`)              a transaction (`transact`)
-------------------------------------------  ---------------------------  ------------------------------------------
the connection, while it lay in the pool     nobody notices               nobody notices
the connection, before the first answer      again at once, once          again at once, once: nothing can have stayed
the connection, later                        again at once, once          Lost
the connection, with COMMIT under way        -                            Lost: whether it was done is not known
another transaction                          Contended                    again, with growing pauses
the server                                   Away                         Away
the replica                                  the primary is asked         -
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.data import backends, bounds
from app.data.backoff import Backoff
from app.data.faults import Away, Contended, Lost
from app.data.follower import Follower
from app.data.pool import Figures, Pool, Watch
from app.data.sessions import Sessions
from app.errors import Misconfigured
from app.settings import DataSettings

_T = TypeVar("_T")
Work = Callable[[AsyncSession], Awaitable[_T]]


class Database:
    """A pool of connections to `url`, opened as they are needed, and one to its replica, if there is one.

    Args:
        url: ``sqlite+aiosqlite:///path``, ``postgresql+asyncpg://…``, ``mysql+aiomysql://…`` or ``mysql+asyncmy://…``.
        settings: the bounds of each pool and of one statement.
        read_url: of a replica, which is asked wherever what is read may be a little behind.
        clock: monotonic seconds.
        backoff, rng: how long to wait before a transaction is run again; `sleep` waits for so many seconds.

    Raises:
        Misconfigured: a URL or its driver is wrong; the message holds no password.
    """

    def __init__(
        self,
        url: str,
        settings: DataSettings,
        *,
        read_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._primary = Sessions(Pool(backends.parse(url), settings, clock))
        self._follower = None if read_url is None else self._follow(read_url, settings, clock)
        self._backoff, self._rng, self._sleep = backoff or Backoff(), rng or random.Random(), sleep
        self._committed: list[Callable[[Mapping[Any, Any]], object]] = []
        # What was tried again, by the reason.
        self._again = {"contended": 0, "lost": 0, "replica": 0}

    def __repr__(self) -> str:
        replica = "" if self._follower is None else f"; {self._follower!r}"
        return f"<Database {self._primary.pool}{replica}>"

    def _follow(self, url: str, settings: DataSettings, clock: Callable[[], float]) -> Follower:
        parsed = backends.parse(url, variable="DATABASE_READ_URL")
        if parsed.get_backend_name() != self._primary.pool.backend:
            raise Misconfigured("DATABASE_READ_URL must lead to a database of the same kind as DATABASE_URL")
        return Follower(Sessions(Pool(parsed, settings, clock)), clock)

    @property
    def url_without_password(self) -> str:
        return self._primary.pool.url_without_password

    # ------------------------------------------------------------------------------------- changes

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One transaction: commits when the block ends, rolls back when it raises. Never call a peer inside it.

        Raises:
            Duplicate, StillReferenced: a constraint forbids the change.
            Contended: a deadlock or a lock that did not come free.
            Unavailable: the database is away, or no connection came free in time.
            DeadlineExceeded: the request has no time left, or had none any more.
        """
        async with self._transaction(Watch(self._primary.pool)) as session:
            yield session

    def on_commit(self, listener: Callable[[Mapping[Any, Any]], object]) -> None:
        """Call `listener` after each commit of a session in whose ``info`` somebody has left something, with that."""
        self._committed.append(listener)

    async def transact(self, work: Work[_T]) -> _T:
        """Run `work` in one transaction; again, from the start, as the table says.

        `work` must do nothing but SQL. Raises what `session` raises.
        """
        failures, lost = 0, False
        while True:
            watch = Watch(self._primary.pool)
            try:
                async with self._transaction(watch) as session:
                    return await work(session)
            except Contended:
                failures += 1
                seconds = self._backoff.pause(failures, bounds.left(), self._rng)
                if seconds is None:
                    raise
                self._again["contended"] += 1
            except Lost:
                if lost or watch.answered or watch.committing:
                    raise
                lost, seconds = True, 0.0
                self._again["lost"] += 1
            await self._sleep(seconds)

    @asynccontextmanager
    async def _transaction(self, watch: Watch) -> AsyncIterator[AsyncSession]:
        async with self._primary.writing(watch) as session:
            yield session
        for listener in self._committed if session.info else ():
            listener(session.info)

    # ------------------------------------------------------------------------------------- reads

    @asynccontextmanager
    async def reading(self, *, fresh: bool = False) -> AsyncIterator[AsyncSession]:
        """A session for SELECT alone: it waits for no writer, and each statement sees what is committed by then.

        Args:
            fresh: it must see what was committed a moment ago; else a replica may be asked that is behind.
        """
        follower = None if fresh else self._follower
        if follower is not None and await follower.has_connection():
            async with follower.reading() as session:
                yield session
            return
        async with self._primary.reading() as session:
            yield session

    async def read(self, work: Work[_T], *, fresh: bool = False) -> _T:
        """What `work` makes of a session for SELECT alone; again, from the start, as the table says.

        `work` must do nothing but SQL. `fresh`, and what it raises, as with `reading`.
        """
        follower = None if fresh else self._follower
        if follower is not None and follower.state.permit():
            try:
                async with follower.reading() as session:
                    return await work(session)
            except (Away, Lost, Contended):
                self._again["replica"] += 1
        try:
            return await self._ask(work)
        except Lost:
            self._again["lost"] += 1
            return await self._ask(work)

    async def _ask(self, work: Work[_T]) -> _T:
        async with self._primary.reading() as session:
            return await work(session)

    async def ping(self) -> None:
        """Ask the primary for a sign of life. Raises Unavailable."""
        await self.read(lambda session: session.execute(text("SELECT 1")), fresh=True)

    # ------------------------------------------------------------------------------------- what it says of itself

    @property
    def pools(self) -> Mapping[str, Figures]:
        """How its pools stand, by the name of the server: primary, and replica if there is one."""
        found = {"primary": self._primary.pool.figures()}
        if self._follower is not None:
            found["replica"] = self._follower.sessions.pool.figures()
        return found

    @property
    def again(self) -> Mapping[str, int]:
        """How often something was tried again, by the reason."""
        return self._again

    @property
    def replica_is_asked(self) -> bool | None:
        """Whether reads go to the replica; None if there is none."""
        return None if self._follower is None else self._follower.state.is_asked

    def describe(self) -> dict[str, Any]:
        """Plain facts for the management view."""
        replica = None
        if self._follower is not None:
            replica = {**self._follower.sessions.pool.describe(), "state": str(self._follower.state)}
        return {"primary": self._primary.pool.describe(), "replica": replica, "tried_again": dict(self._again)}

    async def close(self) -> None:
        await self._primary.pool.close()
        if self._follower is not None:
            await self._follower.sessions.pool.close()
