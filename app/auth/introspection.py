"""The issuer's own word on a token (RFC 7662): for routes where a revocation must hold at once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.auth.principal import Principal
from app.errors import InvalidToken

_MOST_KEPT = 10_000

# Asks the introspection endpoint as this client; raises a `PlatformError` if it does not answer.
Ask = Callable[[Mapping[str, str]], Awaitable[Mapping[str, Any]]]


class Introspector:
    """Asks, and believes the answer for a moment.

    Args:
        keep_seconds: how long a yes counts; never longer than the token.
        clock: seconds of the epoch.
    """

    def __init__(self, ask: Ask, *, keep_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._ask, self._keep_seconds, self._clock = ask, keep_seconds, clock
        self._active_until: dict[bytes, float] = {}

    async def check(self, token: str, principal: Principal) -> None:
        """Return if the issuer says that `token` counts.

        Raises:
            InvalidToken: it does not.
            PlatformError: the issuer is away, so nobody knows.
        """
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock()
        if now < self._active_until.get(digest, 0.0):
            return
        answer = await self._ask({"token": token, "token_type_hint": "access_token"})
        if answer.get("active") is not True:
            self._active_until.pop(digest, None)
            raise InvalidToken("The token was revoked")
        self._keep(digest, min(now + self._keep_seconds, principal.expires_at), now)

    def _keep(self, digest: bytes, until: float, now: float) -> None:
        if len(self._active_until) >= _MOST_KEPT:
            self._active_until = {key: end for key, end in self._active_until.items() if end > now}
        if len(self._active_until) >= _MOST_KEPT:
            del self._active_until[next(iter(self._active_until))]
        self._active_until[digest] = until
