"""Accounts and logins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who can log in. `subject` is what tokens call them."""

    id: int
    subject: str
    username: str
    name: str
    email: str
    roles: tuple[str, ...]
    disabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A login in a browser, known by the digest of the token in its cookie."""

    digest: str
    account: Account
    auth_time: datetime
    expires_at: datetime
