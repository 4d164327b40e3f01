"""The authorizations of this process's database, and the news when one of them ends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from app.services.identity import address, audit
from app.services.identity.account_store import AccountStore
from app.services.identity.accounts import Account
from app.services.identity.alongside import longest_life
from app.services.identity.journal import Event
from app.services.identity.token_store import TokenStore
from app.web import database, resources

tokens = TokenStore(database)
accounts = AccountStore(database)


async def revoke_family(sid: str, event: Event) -> bool:
    """End a family, and write down why; False if it has ended already, or there is none.

    Args:
        event: what was found out, or done.
    """
    now = datetime.now(UTC)
    if not await tokens.revoke(sid, event, now=now):
        return False
    await _tell([sid], now)
    family = await tokens.find_family(sid)
    account = None if family is None else await accounts.find(family.account_id)
    if family is not None and account is not None:
        await note(event, account, client_id=family.client_id)
    return True


async def note(event: Event, account: Account, *, client_id: str, detail: str | None = None) -> None:
    """Write down what happened to tokens in the name of `account`."""
    await audit.record(event, subject=account.subject, client_id=client_id, address=address.current(), detail=detail)


async def revoke_families_of_session(session_digest: str, reason: str) -> list[str]:
    """End all families that come from a login in a browser; returns those that it ended."""
    now = datetime.now(UTC)
    ended = await tokens.revoke_of_session(session_digest, reason, now=now)
    await _tell(ended, now)
    return ended


async def revoke_families_of_account(account_id: int, reason: str) -> list[str]:
    """End all families of an account; returns those that it ended."""
    now = datetime.now(UTC)
    ended = await tokens.revoke_of_account(account_id, reason, now=now)
    await _tell(ended, now)
    return ended


async def _tell(sids: Iterable[str], now: datetime) -> None:
    """Everybody who verifies tokens hears of it, within moments."""
    until = (now + longest_life(resources.settings)).timestamp()
    await resources.revoked_sessions.post(dict.fromkeys(sids, until))
