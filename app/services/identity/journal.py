"""What happened to accounts, clients and tokens: a row that stays, and a line in the log. Never a secret in either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from app import context, telemetry

Event = Literal[
    "login", "login_failed", "locked", "logout", "consent", "consent_denied", "device_approved", "device_denied",
    "token_issued", "token_revoked", "token_exchanged", "code_reused", "refresh_reused",
    "client_created", "secret_rotated", "account_created", "account_disabled", "password_changed", "key_rotated",
]  # fmt: skip

MAX_DETAIL = 500

_log = telemetry.log("identity.audit")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: datetime
    event: Event
    subject: str | None = None
    client_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    detail: str | None = None


class Journal(Protocol):
    """Where entries are kept."""

    async def note(self, entry: Entry) -> None: ...


def _now() -> datetime:
    return datetime.now(UTC)


class Audit:
    """Writes to a journal.

    Args:
        clock: aware wall-clock time.
    """

    def __init__(self, journal: Journal, *, clock: Callable[[], datetime] = _now) -> None:
        self._journal = journal
        self._clock = clock

    async def record(
        self,
        event: Event,
        *,
        subject: str | None = None,
        client_id: str | None = None,
        address: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Keep that `event` happened.

        Args:
            subject: whom it concerns: of an account that exists, never what somebody typed into a form.
            detail: a few words of ours.
        """
        current = context.current()
        entry = Entry(
            at=self._clock(),
            event=event,
            subject=_short(subject, 100),
            client_id=_short(client_id, 64),
            address=_short(address, 64),
            request_id=current.request_id if current is not None else None,
            detail=_short(telemetry.redact(detail), MAX_DETAIL),
        )
        # First the line: it is there even if the database is not.
        _log.info(
            event, subject=entry.subject, client_id=entry.client_id, address=entry.address, detail=entry.detail
        )  # fmt: skip
        await self._journal.note(entry)


def _short(text: str | None, longest: int) -> str | None:
    return None if text is None else text.replace("\0", "")[:longest]
