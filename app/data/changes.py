"""What an INSERT, UPDATE or DELETE did."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Column, CursorResult, Delete, Insert, Update, func, select
from sqlalchemy.ext.asyncio import AsyncSession


async def count(session: AsyncSession, statement: Update | Delete) -> int:
    """Execute it and return how many rows it matched, whether or not their values differ from before."""
    result = cast(CursorResult[Any], await session.execute(statement))
    return result.rowcount


async def new_id(session: AsyncSession, statement: Insert) -> int:
    """Execute the insertion of one row and return the id that the database gave it."""
    result = cast(CursorResult[Any], await session.execute(statement))
    (number,) = cast(tuple[int], result.inserted_primary_key)
    return number


async def count_on(session: AsyncSession, column: Column[int]) -> None:
    """After rows were inserted with ids of their own: let the database number new rows after the highest.

    The others do so by themselves; PostgreSQL's sequence does not look at the table.
    """
    if session.get_bind().dialect.name == "postgresql":
        sequence = func.pg_get_serial_sequence(column.table.name, column.name)
        await session.execute(select(func.setval(sequence, select(func.max(column)).scalar_subquery())))
