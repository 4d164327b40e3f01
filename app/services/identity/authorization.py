"""What an authorization leaves behind: codes, families of tokens, and how one follows from another. Frozen values.

    code ── used once ──► family ◄── approved ── device code
                            │ sid
                 ┌──────────┴───────────┐
           access tokens          refresh token ── used once ──► the next one …
        (signed, not stored)

A code or a refresh token that comes a second time has been stolen, by one of the two who had it: its family ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, TokenMixin

DeviceState = Literal["pending", "approved", "denied", "used"]


@dataclass(frozen=True, slots=True)
class Family:
    """All tokens of one authorization; `sid` is their claim of that name."""

    sid: str
    client_id: str
    account_id: int
    session_digest: str | None
    scope: str
    audience: str
    auth_time: datetime
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Code(AuthorizationCodeMixin):  # type: ignore[misc]  # Authlib ships no types
    """An authorization code, known by its digest."""

    digest: str
    sid: str
    client_id: str
    account_id: int
    session_digest: str | None
    redirect_uri: str
    scope: str
    audience: str
    nonce: str | None
    challenge: str
    auth_time: datetime
    expires_at: datetime
    used_at: datetime | None = None

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def found(self, now: datetime, expires_at: datetime) -> Family:
        """The family that it founds."""
        return Family(
            self.sid,
            self.client_id,
            self.account_id,
            self.session_digest,
            self.scope,
            self.audience,
            self.auth_time,
            now,
            expires_at,
        )


@dataclass(frozen=True, slots=True)
class Refresh(TokenMixin):  # type: ignore[misc]  # Authlib ships no types
    """A refresh token, known by its digest, and its family."""

    digest: str
    expires_at: datetime
    used_at: datetime | None
    family: Family

    def check_client(self, client: object) -> bool:
        return getattr(client, "client_id", None) == self.family.client_id

    def get_scope(self) -> str:
        return self.family.scope


@dataclass(frozen=True, slots=True)
class NewRefresh:
    """A refresh token that is about to be stored."""

    digest: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A device code, known by its digest; the account and the login are known once it is approved."""

    digest: str
    user_code: str
    client_id: str
    scope: str
    audience: str
    state: DeviceState
    account_id: int | None
    session_digest: str | None
    auth_time: datetime | None
    interval_seconds: int
    polled_at: datetime | None
    expires_at: datetime

    def get_scope(self) -> str:
        return self.scope


Verdict = Literal["fresh", "retried", "reused", "unknown"]


def judge(refresh: Refresh, now: datetime, *, grace_seconds: float) -> Verdict:
    """What it means that this refresh token comes now.

    Within the grace of its first use, the answer to that use may have been lost: a retry. Later it is theft.
    """
    if refresh.family.revoked_at is not None:
        return "unknown"
    if refresh.used_at is not None:
        return "retried" if (now - refresh.used_at).total_seconds() <= grace_seconds else "reused"
    return "fresh" if now < refresh.expires_at else "unknown"
