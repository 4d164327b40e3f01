"""User codes (RFC 8628, 3.3), as the page sees them where somebody enters one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from app.services.identity import clients, repository, scopes
from app.services.identity.accounts import Session
from app.services.identity.client import Client


@dataclass(frozen=True, slots=True)
class Pending:
    """A device that waits for an answer."""

    client: Client
    scopes: tuple[str, ...]


async def lookup(user_code: str) -> Pending | None:
    """The device that shows `user_code`, which may be written in small letters and with a dash."""
    code = await repository.tokens.find_user_code(canonical(user_code), datetime.now(UTC))
    client = None if code is None else await clients.find(code.client_id)
    return None if code is None or client is None else Pending(client, scopes.words(code.scope))


async def decide(user_code: str, session: Session, approved: bool) -> bool:  # the page's contract
    """Approve or deny a device; False if there is nothing to decide (any more)."""
    return await repository.tokens.decide(
        canonical(user_code),
        "approved" if approved else "denied",
        account_id=session.account.id,
        session_digest=session.digest,
        auth_time=session.auth_time,
        now=datetime.now(UTC),
    )


def canonical(user_code: str) -> str:
    """A user code as it is compared: letters and digits alone, in capitals."""
    return "".join(c for c in user_code.upper() if c.isascii() and c.isalnum())
