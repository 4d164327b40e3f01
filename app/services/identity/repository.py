"""The authorizations of this process's database, and the news when one of them ends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from app.services.identity.account_store import AccountStore
from app.services.identity.alongside import longest_life
from app.services.identity.token_store import TokenStore
from app.web import database, resources

tokens = TokenStore(database)
accounts = AccountStore(database)


async def revoke_family(sid: str, reason: str) -> bool:
    """End a family; False if it has ended already, or there is none."""
    now = datetime.now(UTC)
    if not await tokens.revoke(sid, reason, now=now):
        return False
    await _tell([sid], now)
    return True


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
