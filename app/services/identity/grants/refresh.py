"""Refresh tokens (RFC 6749, 6; RFC 9700, 4.14): each is used once, and one that comes again ends its family."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError
from authlib.oauth2.rfc6749.grants import RefreshTokenGrant

from app.services.identity import authorization, repository
from app.services.identity.accounts import Account
from app.services.identity.authorization import Refresh
from app.services.identity.client import digest
from app.services.identity.grants import issuing
from app.services.identity.grants.issuing import Issuing
from app.web import await_, resources


class RefreshToken(Issuing, RefreshTokenGrant):  # type: ignore[misc]  # Authlib ships no types
    """Another access token, of the same scope or less, and the next refresh token, always of the same."""

    def authenticate_refresh_token(self, refresh_token: str) -> Refresh | None:
        found = await_(repository.tokens.find_refresh(digest(refresh_token)))
        if found is None or not found.check_client(self.request.client):
            return None
        verdict = authorization.judge(found, datetime.now(UTC), grace_seconds=_grace())
        if verdict == "reused":
            await_(repository.revoke_family(found.family.sid, "refresh_reused"))
        if verdict in ("reused", "unknown"):
            return None
        self.require_same_audience(found.family.audience)
        return found

    def authenticate_user(self, refresh_token: Refresh) -> Account:
        return issuing.living_account(refresh_token.family.account_id)

    def generate_token(self, user: Account, scope: str, **_: Any) -> dict[str, Any]:
        return self.user_token(user, self.request.refresh_token.family, scope)

    def save_token(self, token: dict[str, Any]) -> None:
        old: Refresh = self.request.refresh_token
        assert self.new_refresh is not None  # noqa: S101  # the client is registered for this grant
        now = datetime.now(UTC)
        verdict = await_(repository.tokens.rotate(old.digest, self.new_refresh, now=now, grace_seconds=_grace()))
        if verdict == "reused":
            await_(repository.revoke_family(old.family.sid, "refresh_reused"))
        if verdict in ("reused", "unknown"):
            raise InvalidGrantError("The refresh token does not count any more.")

    def revoke_old_credential(self, refresh_token: Refresh) -> None:
        """Done with the rotation."""


def _grace() -> float:
    return resources.settings.identity.refresh_grace_seconds
