"""How long SQL may take within a request: what its deadline leaves.

A server knows the longest time of any statement (``statement_timeout_seconds``) since the connection was opened. Where a
request has less, the statement is bound to that:

    PostgreSQL        asyncpg's timer, which each of its calls has anyway, cancels the statement on the server
    MariaDB, MySQL    the limit travels with the statement
    SQLite            the thread that is at work is interrupted

and the whole, with every wait for a connection or a turn, by `in_time`. A COMMIT that is cut may still have happened. Of
a statement that MySQL, and not MariaDB, is to cut, see `mysql`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from app import context, deadline
from app.context import HOP_RESERVE_SECONDS
from app.errors import DeadlineExceeded

# A statement ends first, then its session, then the request: each of them says why, and cleans up.
_STATEMENT_RESERVE_SECONDS = 2 * HOP_RESERVE_SECONDS


def left() -> float:
    """Seconds that one statement may take, so that an answer can still be written; ``inf`` outside of a request."""
    current = context.current()
    return float("inf") if current is None else current.remaining_seconds() - _STATEMENT_RESERVE_SECONDS


def is_over() -> bool:
    """Whether what has just failed can have failed for want of time."""
    return left() <= HOP_RESERVE_SECONDS


@contextmanager
def in_time() -> Iterator[None]:
    """Bound the block by the request's deadline, if there is one.

    Raises:
        DeadlineExceeded: before the block, if nothing is left, or from within it.
    """
    seconds = left()
    if seconds == float("inf"):
        yield
        return
    if seconds <= 0:
        raise DeadlineExceeded("There is no time left for the database")
    bound = deadline.of(asyncio.get_running_loop()).within(seconds + HOP_RESERVE_SECONDS)
    try:
        with bound:
            yield
    except TimeoutError as error:
        if not bound.fired:
            raise
        raise DeadlineExceeded("The time for the database ran out") from error
