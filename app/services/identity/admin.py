"""What an administrator does to accounts from the command line."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime

from argon2 import Parameters

from app.data import Database
from app.errors import InvalidInput, NotFound
from app.services.identity import passwords
from app.services.identity.account_store import AccountStore
from app.services.identity.accounts import MAX_PASSWORD, MAX_USERNAME, Account, canonical
from app.services.identity.journal import Audit
from app.services.identity.token_store import TokenStore

MIN_PASSWORD = 8

# A role travels in a list between spaces.
_WORD = re.compile(r"[\x21-\x7e]{1,64}")
_EMAIL = re.compile(r"[^@\s\0]{1,64}@[^@\s\0]{1,189}")


async def add_account(
    database: Database,
    username: str,
    password: str,
    *,
    name: str | None = None,
    email: str = "",
    roles: Collection[str] = (),
    subject: str | None = None,
    parameters: Parameters = passwords.STRONG,
) -> Account:
    """Make an account.

    Args:
        name: how people call them; the user name if not given.
        subject: what tokens call them, as a rule the id in the users service; a random one if not given.

    Raises:
        AccountExists: the user name or the subject is taken.
        InvalidInput: says which argument breaks a rule.
    """
    username = canonical(username)
    name = username if name is None else name
    _check(username, password, name, email, roles, subject)
    store = AccountStore(database)
    account = await store.add(
        subject=subject or secrets.token_hex(16),
        username=username,
        name=name,
        email=email,
        password_hash=await passwords.hash_password(password, parameters),
        roles=tuple(roles),
        created_at=datetime.now(UTC),
    )
    await Audit(store).record("account_created", subject=account.subject, detail=f"roles: {' '.join(roles) or 'none'}")
    return account


async def set_password(
    database: Database, username: str, password: str, *, parameters: Parameters = passwords.STRONG
) -> list[str]:
    """Give an account another password: it is unlocked, and logged out everywhere.

    Returns:
        The digests of the sessions that it ends; their token families are the caller's to revoke.

    Raises:
        NotFound, InvalidInput.
    """
    store = AccountStore(database)
    account = await store.find_by_username(canonical(username))
    if account is None:
        raise NotFound(f"There is no account {username}")
    _check_password(password)
    ended = await store.change_password(account.id, await passwords.hash_password(password, parameters))
    await Audit(store).record("password_changed", subject=account.subject)
    return ended


async def disable_account(database: Database, username: str) -> list[str]:
    """Let nobody log in to an account any more: its sessions and its token families end.

    Returns:
        The families; that none of their tokens counts any more is the caller's to tell.

    Raises:
        NotFound.
    """
    store = AccountStore(database)
    account = await store.find_by_username(canonical(username))
    if account is None:
        raise NotFound(f"There is no account {username!r}")
    await store.disable(account.id)
    ended = await TokenStore(database).revoke_of_account(account.id, "account_disabled", now=datetime.now(UTC))
    await Audit(store).record("account_disabled", subject=account.subject)
    return ended


def _check(
    username: str, password: str, name: str, email: str, roles: Collection[str], subject: str | None
) -> None:  # fmt: skip
    if not username or len(username) > MAX_USERNAME or not username.isprintable():
        raise InvalidInput(f"A user name has 1 to {MAX_USERNAME} printable characters")
    if not name or len(name) > MAX_USERNAME or not name.isprintable():
        raise InvalidInput(f"A name has 1 to {MAX_USERNAME} printable characters")
    if email and not _EMAIL.fullmatch(email):
        raise InvalidInput("That is no e-mail address")
    if any(not _WORD.fullmatch(role) for role in roles) or len(" ".join(roles)) > 500:
        raise InvalidInput("A role is one word")
    if subject is not None and not _WORD.fullmatch(subject):
        raise InvalidInput("A subject is one word of at most 64 characters")
    _check_password(password)


def _check_password(password: str) -> None:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
