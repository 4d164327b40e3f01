"""asyncpg whose statements end with the request that wants them.

asyncpg has a timer for every call, and asks the server to cancel what takes longer; here the timer knows the request's
deadline. That costs no round trip, and the connection stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from app.data import bounds

# Of a statement that was prepared, the server waits for more: it is sent even if there is next to no time left.
_SHORTEST_SECONDS = 0.001


async def connect(*arguments: Any, **options: Any) -> Connection:
    """As ``asyncpg.connect``, but one that takes too long has not connected: that is no matter of a statement's."""
    try:
        connection: Connection = await asyncpg.connect(*arguments, connection_class=Connection, **options)
    except TimeoutError as error:
        raise OSError("The server did not answer in time") from error
    connection.longest_seconds = options.get("command_timeout") or float("inf")
    return connection


class Connection(asyncpg.Connection):  # type: ignore[misc]  # it ships no types
    """A connection whose statements take no longer than the request has."""

    longest_seconds = float("inf")
    _is_leaving = False

    async def set_type_codec(self, *arguments: Any, **options: Any) -> None:
        # The first that SQLAlchemy does with a connection; it leaves what goes wrong there untranslated.
        try:
            await super().set_type_codec(*arguments, **options)
        except (asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            raise ConnectionResetError("The server took back a connection that it had just given") from error

    async def prepare(self, query: str, **options: Any) -> Statement:
        return Statement(self, await super().prepare(query, **{"timeout": self.timeout(), **options}))

    async def executemany(self, command: str, args: Iterable[Any], **options: Any) -> None:
        await super().executemany(command, args, **{"timeout": self.timeout(), **options})

    async def close(self, *, timeout: float | None = None) -> None:
        self._is_leaving = True
        await super().close(timeout=timeout)

    def terminate(self) -> None:
        # Of a close that it has begun SQLAlchemy lets go as soon as it is cancelled once more, and terminates. That
        # would take back the request to cancel, and the statement would go on. The close has a bound of its own.
        if not self._is_leaving:
            super().terminate()

    def timeout(self) -> float | None:
        """Of one call, in seconds; None for the connection's own."""
        seconds = bounds.left()
        return max(_SHORTEST_SECONDS, seconds) if seconds < self.longest_seconds else None


class Statement:
    """The part of a prepared statement that SQLAlchemy uses; one serves many requests."""

    __slots__ = ("_connection", "_prepared", "cursor", "get_attributes", "get_statusmsg")

    def __init__(self, connection: Connection, prepared: PreparedStatement) -> None:
        self._connection, self._prepared = connection, prepared
        self.cursor = prepared.cursor
        self.get_attributes = prepared.get_attributes
        self.get_statusmsg = prepared.get_statusmsg

    async def fetch(self, *arguments: Any) -> list[Any]:
        rows: list[Any] = await self._prepared.fetch(*arguments, timeout=self._connection.timeout())
        return rows
