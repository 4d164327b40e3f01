"""MySQL and MariaDB: the request's deadline travels with the statement, which costs no round trip.

MariaDB takes it before any statement, and means waiting for locks as well. MySQL takes it in a SELECT only; of another
statement the client lets go at the deadline, and the server by ``innodb_lock_wait_timeout``.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.ext.asyncio import AsyncEngine

from app.data import bounds

_BOUND = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\b", re.IGNORECASE)
_SHORTEST_SECONDS = 0.001  # 0 would mean no limit


def limit(engine: AsyncEngine, longest_seconds: float) -> None:
    """Let each statement carry what its request has left, if that is less than `longest_seconds`."""

    dialect = engine.dialect
    assert isinstance(dialect, MySQLDialect)  # noqa: S101  # the caller knows its backend

    def bind(
        _connection: Connection, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool
    ) -> tuple[str, Any]:
        seconds = bounds.left()
        if seconds < longest_seconds:
            statement = _bound(statement, max(_SHORTEST_SECONDS, seconds), mariadb=dialect.is_mariadb)
        return statement, parameters

    event.listen(engine.sync_engine, "before_cursor_execute", bind, retval=True)
    # Many rows become one INSERT of SQLAlchemy's making: aiomysql, too, makes one, but only if it begins with the word.
    dialect.use_insertmanyvalues_wo_returning = True


def _bound(statement: str, seconds: float, *, mariadb: bool) -> str:
    found = _BOUND.match(statement)
    if found is None:
        return statement
    if mariadb:
        return f"SET STATEMENT max_statement_time={seconds:.6f} FOR {statement}"
    if found[1].upper() != "SELECT":
        return statement
    return f"{statement[: found.end()]} /*+ MAX_EXECUTION_TIME({int(seconds * 1000) or 1}) */{statement[found.end() :]}"
