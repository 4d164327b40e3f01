"""Accounts, logins, and what happens to who guesses passwords.

    attempt ── counted as wrong, at once ──► verify ── right ──► the count is 0 again
       │                                        └─ wrong ──► it stays counted
       └─ the account is locked: not even verified, but it takes as long, and the answer is the same

An attempt is counted before its password is looked at: of any number of guesses at the same time, no more are looked at
than may fail in a row. The answer never tells what was wrong: an unknown name, the password, a lock and a disabled
account look alike, and cost one argon2 each.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from app.errors import Conflict, PlatformError

MAX_USERNAME = 100
MAX_PASSWORD = 1024
_MOST_DOUBLINGS = 30

Why = Literal["malformed", "unknown", "locked", "wrong", "disabled"]


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


@dataclass(frozen=True, slots=True)
class Lockout:
    """After `failures` wrong passwords in a row: a pause of `first`, doubling with each further one to `longest`."""

    failures: int = 5
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try to log in to an account that exists.

    Args:
        counted: False if the account is locked: the password is not to be looked at.
        locked_until: until when nobody may try again, should this one turn out wrong; None if they may at once.
    """

    account: Account
    password_hash: str
    counted: bool
    locked_until: datetime | None


class AccountExists(Conflict):
    """The user name or the subject is another account's."""

    code, title = "account_exists", "Account exists"


class LoginFailed(PlatformError):
    """The same for whatever was wrong; `why` and `attempt` are for the audit log alone."""

    status, code, title = 403, "login_failed", "Login failed"

    def __init__(self, why: Why, attempt: Attempt | None = None) -> None:
        super().__init__(
            "The user name or the password is wrong, or there were too many attempts. After several wrong passwords "
            "an account is locked for a while: wait a few minutes before you try again."
        )
        self.why: Why = why
        self.attempt = attempt


class Accounts(Protocol):
    """Where accounts are kept, as far as a login needs them."""

    async def attempt(self, username: str, policy: Lockout, now: datetime) -> Attempt | None: ...
    async def forgive(self, account_id: int) -> None: ...
    async def replace_hash(self, account_id: int, *, old: str, new: str) -> None: ...


class Passwords(Protocol):
    """How passwords are verified: each call of `verify` costs the same, whatever it says."""

    @property
    def decoy(self) -> str:
        """A hash that no password has."""

    async def hash(self, text: str) -> str: ...
    async def verify(self, text: str, hashed: str) -> bool: ...
    def needs_rehash(self, hashed: str) -> bool: ...


def lockout(failures: int, policy: Lockout) -> timedelta | None:
    """How long an account is locked after so many wrong passwords in a row; None: not at all."""
    beyond = failures - policy.failures
    if beyond < 0:
        return None
    # Bounded, since a timedelta is.
    doublings: int = 1 << min(beyond, _MOST_DOUBLINGS)
    return min(policy.longest, policy.first * doublings)


def canonical(username: str) -> str:
    """The one form of a user name: ``Ada`` and ``ada`` are the same (NFKC, case folded)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username.strip()).casefold())


def new_session_token() -> tuple[str, str]:
    """A token for a cookie, and its digest."""
    token = secrets.token_urlsafe(32)
    return token, session_digest(token)


def session_digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


async def log_in(
    username: str, password: str, accounts: Accounts, passwords: Passwords, *, policy: Lockout, now: datetime
) -> Account:
    """The account that `username` and `password` belong to. Raises LoginFailed."""
    name = canonical(username)
    if "\0" in name or len(name) > MAX_USERNAME or len(password) > MAX_PASSWORD:
        raise LoginFailed("malformed")
    attempt = await accounts.attempt(name, policy, now)
    known = attempt is not None and attempt.counted
    right = await passwords.verify(password, attempt.password_hash if attempt and known else passwords.decoy)
    if attempt is None:
        raise LoginFailed("unknown")
    if not attempt.counted:
        raise LoginFailed("locked", attempt)
    if not right:
        raise LoginFailed("wrong", attempt)
    if attempt.account.disabled:
        raise LoginFailed("disabled", attempt)
    await accounts.forgive(attempt.account.id)
    if passwords.needs_rehash(attempt.password_hash):
        new = await passwords.hash(password)
        await accounts.replace_hash(attempt.account.id, old=attempt.password_hash, new=new)
    return attempt.account
