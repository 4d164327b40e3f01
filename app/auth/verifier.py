"""Token → principal, here and without asking anybody, and remembered until the token expires."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection

from joserfc import jwt
from joserfc.errors import JoseError

from app.auth import algorithms, claims
from app.auth.keyring import Keyring
from app.auth.principal import Principal
from app.auth.revocations import Revocations
from app.errors import InvalidToken
from app.settings import AuthSettings


class Verifier:
    """Verifies tokens that are meant for `audiences`.

    Args:
        audiences: the names by which a token may mean us: the public API, and this service.
        clock: seconds of the epoch.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        audiences: Collection[str],
        keyring: Keyring,
        revocations: Revocations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._audiences = settings, frozenset(audiences)
        self._keyring, self._revocations, self._clock = keyring, revocations, clock
        # By digest: a token that lies about in memory for longer than its request could be taken.
        self._known: dict[bytes, Principal] = {}

    def __repr__(self) -> str:
        return f"<Verifier for {', '.join(sorted(self._audiences))}, {len(self._known)} tokens known>"

    def recall(self, token: str) -> Principal | None:
        """The bearer of a token that was verified before; None if it has to be verified.

        Raises:
            InvalidToken: it has expired since, or its session has ended.
        """
        digest = _digest(token)
        principal = self._known.get(digest)
        if principal is not None:
            if self._clock() >= principal.expires_at + self._settings.leeway_seconds:
                del self._known[digest]
                raise InvalidToken("The token has expired")
            self._check_session(principal)
        return principal

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`.

        Raises:
            InvalidToken: says what is wrong with it, never what it is.
            Unavailable: the issuer's keys were never had, and can't be had now.
        """
        known = self.recall(token)
        if known is not None:
            return known
        header = claims.read_header(token, max_bytes=self._settings.max_token_bytes)
        key = await self._keyring.find(header.kid, header.algorithm)
        if key is None:
            raise InvalidToken("The token's key is not known")
        try:
            found = jwt.decode(token, key, registry=algorithms.registry).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            # The last one: brackets in brackets, in the header for everybody to write.
            raise InvalidToken("The token's signature is wrong") from None
        principal = claims.read(
            found,
            issuer=self._settings.issuer,
            audiences=self._audiences,
            now=self._clock(),
            leeway_seconds=self._settings.leeway_seconds,
        )
        self._check_session(principal)
        self._remember(_digest(token), principal)
        return principal

    def describe(self) -> dict[str, object]:
        return {
            "audiences": sorted(self._audiences),
            "tokens_known": len(self._known),
            "sessions_revoked": len(self._revocations),
            **self._keyring.describe(),
        }

    def _check_session(self, principal: Principal) -> None:
        if principal.session is not None and principal.session in self._revocations:
            raise InvalidToken("The session has ended")

    def _remember(self, digest: bytes, principal: Principal) -> None:
        if self._settings.cached_tokens == 0:
            return
        if len(self._known) >= self._settings.cached_tokens:
            # The oldest first: what is in use is verified again, and is then the youngest.
            del self._known[next(iter(self._known))]
        self._known[digest] = principal


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
