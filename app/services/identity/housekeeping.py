"""What has expired is removed, once in a while, by whichever process serves a request then.

There is no timer. Several processes may do it at the same time: what one has removed, the other does not find.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Table

from app import telemetry
from app.errors import PlatformError
from app.services.identity import models

_log = telemetry.log("identity.housekeeping")


@dataclass(frozen=True, slots=True)
class Policy:
    """Look every `interval_seconds`; remove up to `batch` rows of each table.

    `memory` is how long a code outlives its time: who uses one again that late is still found out. Assertions are kept
    for longer than any difference of clocks, so that none is accepted twice.
    """

    interval_seconds: float = 60.0
    batch: int = 1_000
    memory: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Task:
    """Rows of `table` whose `column` is earlier than `before` have had their time."""

    table: Table
    column: str
    before: datetime


class Broom(Protocol):
    """Removes rows."""

    async def purge(self, table: Table, column: str, *, before: datetime, limit: int) -> int: ...


def due(now: datetime, policy: Policy, *, keep_audit: timedelta) -> tuple[Task, ...]:
    """What has had its time at `now`."""
    remembered = now - policy.memory
    return (
        Task(models.sessions, "expires_at", now),
        Task(models.codes, "expires_at", remembered),
        Task(models.device_codes, "expires_at", remembered),
        Task(models.assertions, "expires_at", remembered),
        # Their refresh tokens go with them.
        Task(models.families, "expires_at", remembered),
        Task(models.audit, "at", now - keep_audit),
    )


class Housekeeping:
    """Removes what is due, at most once per interval in this process.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, policy: Policy, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._next = clock() + policy.interval_seconds

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._next

    async def run_if_due(self, broom: Broom, *, now: datetime, keep_audit: timedelta) -> int:
        """Remove some, and return how many; stops where it fails, and a later run goes on. Never raises."""
        if not self.is_due:
            return 0
        # Before the first wait: of the requests that come meanwhile, none does the same.
        self._next = self._clock() + self._policy.interval_seconds
        removed = 0
        try:
            for task in due(now, self._policy, keep_audit=keep_audit):
                removed += await broom.purge(
                    task.table, task.column, before=task.before, limit=self._policy.batch
                )  # fmt: skip
        except PlatformError as error:
            _log.warning("what has expired must wait", error=repr(error))
        return removed
