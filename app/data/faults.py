"""Which foreign error means what. Read from the databases' own codes, never from their texts.

kind         what happened                                   becomes                        is it tried again?
-----------  ----------------------------------------------  -----------------------------  ----------------------
AWAY         nobody there, or nobody who lets us in          Away                           no
LOST         the connection broke while it was in use        Lost                           see `Database`
CUT          a statement, or a wait, took too long           Unavailable, DeadlineExceeded  no
CONTENDED    deadlock, serialization failure, lock wait      Contended                      with pauses
DUPLICATE    a unique constraint                             Duplicate                      no
REFERENCED   a foreign key                                   StillReferenced                no

Sources: PostgreSQL appendix A (SQLSTATE), the MySQL and MariaDB error references, sqlite.org/rescode.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from sqlalchemy import exc

from app.errors import Conflict, PlatformError, Unavailable

RETRY_AFTER_SECONDS = 1.0


class Duplicate(Conflict):
    """A value that must be unique is there already; a service says which, if it can."""


class StillReferenced(Conflict):
    """Another row needs this one, or the row that this one needs is gone."""


class Away(Unavailable):
    """No connection can be had: nobody there, or nobody who lets us in. Nothing was sent."""


class Lost(Unavailable):
    """The connection broke; whether the last thing that was sent on it has been done is not known."""


class Contended(Unavailable):
    """Other transactions stood in the way (deadlock, lock wait); the same work may succeed at once."""


class Kind(Enum):
    AWAY = auto()
    LOST = auto()
    CUT = auto()
    CONTENDED = auto()
    DUPLICATE = auto()
    REFERENCED = auto()


# Of the errors of a socket: those of one that was open.
_BROKEN = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)

_POSTGRESQL = {
    "23505": Kind.DUPLICATE,
    "23503": Kind.REFERENCED,
    "23001": Kind.REFERENCED,
    "40001": Kind.CONTENDED,  # serialization failure
    "40P01": Kind.CONTENDED,  # deadlock
    "55P03": Kind.CONTENDED,  # lock not available
    "57014": Kind.CUT,  # cancelled: the statement timeout
    "57P01": Kind.LOST,  # shutting down
    "57P02": Kind.LOST,
    "57P03": Kind.AWAY,  # starting up
    "57P05": Kind.LOST,  # idle session ended
    "3D000": Kind.AWAY,  # no such database, yet
}
# Whole classes: connection trouble, refused credentials, no memory, disk or connection left, input/output errors.
_POSTGRESQL_CLASSES = {"08": Kind.LOST, "28": Kind.AWAY, "53": Kind.AWAY, "58": Kind.AWAY}

_MYSQL = {
    1062: Kind.DUPLICATE,
    1586: Kind.DUPLICATE,
    1451: Kind.REFERENCED,
    1452: Kind.REFERENCED,
    1205: Kind.CONTENDED,  # lock wait timeout
    1213: Kind.CONTENDED,  # deadlock
    1020: Kind.CONTENDED,  # record has changed since last read
    1021: Kind.AWAY,  # disk full
    1040: Kind.AWAY,  # too many connections
    1044: Kind.AWAY,
    1045: Kind.AWAY,  # access denied
    1049: Kind.AWAY,  # no such database, yet
    1053: Kind.LOST,  # shutting down
    1203: Kind.AWAY,
    1226: Kind.AWAY,
    1317: Kind.CUT,  # interrupted
    1927: Kind.LOST,  # killed
    1969: Kind.CUT,  # statement timeout, MariaDB
    3024: Kind.CUT,  # statement timeout, MySQL
    2002: Kind.AWAY,
    2003: Kind.AWAY,  # refused
    2006: Kind.LOST,  # gone away
    2013: Kind.LOST,  # lost during query
    4031: Kind.LOST,  # idle for too long
}

_SQLITE = {
    2067: Kind.DUPLICATE,  # SQLITE_CONSTRAINT_UNIQUE
    1555: Kind.DUPLICATE,  # SQLITE_CONSTRAINT_PRIMARYKEY
    787: Kind.REFERENCED,  # SQLITE_CONSTRAINT_FOREIGNKEY
    1811: Kind.REFERENCED,  # SQLITE_CONSTRAINT_TRIGGER: how RESTRICT reports itself
}
# Primary result codes: the low byte of an extended one.
_SQLITE_PRIMARY = {
    5: Kind.CONTENDED,  # BUSY
    6: Kind.CONTENDED,  # LOCKED
    8: Kind.AWAY,  # READONLY
    9: Kind.CUT,  # INTERRUPT
    10: Kind.AWAY,  # IOERR
    13: Kind.AWAY,  # FULL
    14: Kind.AWAY,  # CANTOPEN
}


_AWAY = "The database does not answer"
_BECOMES: Mapping[Kind, tuple[type[PlatformError], str]] = {
    Kind.AWAY: (Away, _AWAY),
    Kind.LOST: (Lost, _AWAY),
    Kind.CUT: (Unavailable, _AWAY),
    Kind.CONTENDED: (Contended, "The database is busy with conflicting work"),
    Kind.DUPLICATE: (Duplicate, "This already exists"),
    Kind.REFERENCED: (StillReferenced, "Something else depends on this"),
}


def translate(error: Exception) -> PlatformError | None:
    """The platform's error for a foreign one, or None if it is a programming error that must stay what it is."""
    kind = classify(error)
    if kind is None:
        return None
    become, detail = _BECOMES[kind]
    return become(detail, retry_after=RETRY_AFTER_SECONDS if issubclass(become, Unavailable) else None)


def classify(error: Exception) -> Kind | None:
    if not isinstance(error, exc.DBAPIError):
        return _without_code(error)
    kind = _by_code(error.orig)
    return Kind.LOST if kind is None and error.connection_invalidated else kind


def _without_code(error: BaseException) -> Kind | None:
    # A driver that cannot connect raises the socket's own error; the pool raises its own when it is exhausted.
    if isinstance(error, TimeoutError | exc.TimeoutError):
        return Kind.CUT
    if isinstance(error, _BROKEN):
        return Kind.LOST
    return Kind.AWAY if isinstance(error, OSError) else None


def _by_code(origin: BaseException | None) -> Kind | None:
    number = origin.args[0] if origin is not None and origin.args else None
    # Asked first, because MySQL's errors carry an SQLSTATE as well, and it is too coarse.
    if isinstance(number, int):
        return _MYSQL.get(number)
    sqlstate = getattr(origin, "sqlstate", None)
    if isinstance(sqlstate, str):
        return _POSTGRESQL.get(sqlstate) or _POSTGRESQL_CLASSES.get(sqlstate[:2])
    code = getattr(origin, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _SQLITE.get(code) or _SQLITE_PRIMARY.get(code & 0xFF)
    return None
