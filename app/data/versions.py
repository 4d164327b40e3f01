"""Optimistic concurrency: a row's version counts its changes, and a change may say for which versions it is meant.

    UPDATE … SET …, version = version + 1 WHERE id = :id AND version IN (:expected)

The condition stands in the statement that makes the change: between a look at a row and its change, anybody may come.
"""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import BigInteger, Column, ColumnElement, text, true

from app.errors import PreconditionFailed

# The versions for which a change is meant; None: whatever it is.
Expected: TypeAlias = frozenset[int] | None


def column() -> Column[int]:
    """The column ``version``, for a table and for ``op.add_column`` alike: rows that are there already begin with 1."""
    return Column("version", BigInteger, nullable=False, server_default=text("1"))


def among(version: ColumnElement[int], expected: Expected) -> ColumnElement[bool]:
    """The condition that `version` is one of `expected`."""
    return true() if expected is None else version.in_(sorted(expected))


def check(version: int, expected: Expected) -> None:
    """Raises: PreconditionFailed: `version` is none of `expected`."""
    if expected is not None and version not in expected:
        raise _changed()


def missed(expected: Expected, *, there: bool) -> None:
    """A statement with `among` has found nothing to change. Raises: PreconditionFailed: the row is `there`."""
    if there and expected is not None:
        raise _changed()


def _changed() -> PreconditionFailed:
    return PreconditionFailed("It has changed since: read it again")
