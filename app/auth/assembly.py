"""Puts a process's guard together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.auth import bearer, keyring
from app.auth.introspection import Introspector
from app.auth.issuer import Issuer, Send
from app.auth.keyring import Keyring
from app.auth.outbound import Outbound
from app.auth.revocations import Revocations
from app.auth.verifier import Verifier
from app.errors import Misconfigured
from app.settings import AuthSettings


@dataclass(frozen=True, slots=True)
class Auth:
    """One process's guard.

    Args:
        outbound: tokens for calls to peers; None without credentials at the issuer.
        revocations: hears of sessions that have ended.
    """

    verifier: Verifier
    introspector: Introspector
    outbound: Outbound | None
    revocations: Revocations

    def describe(self) -> dict[str, Any]:
        """Plain facts for the management view."""
        own = {} if self.outbound is None else self.outbound.describe()
        return {**self.verifier.describe(), **own}


@asynccontextmanager
async def open_auth(
    settings: AuthSettings, *, service: str, issuer: str, send: Send, keys_file: Path | None = None
) -> AsyncIterator[Auth]:
    """Open the guard of one process; an issuer that is away is not fatal.

    Args:
        service: what this process is called: as an audience, and as a client unless the settings say otherwise.
        issuer: the name of the service that is the issuer.
        send: reaches it.
        keys_file: where its last good keys are kept.

    Raises:
        Misconfigured: ``jwks_file`` is not to be read.
    """
    secret = None if settings.client_secret is None else settings.client_secret.get_secret_value()
    asked = Issuer(send, client_id=settings.client_id or service, client_secret=secret)
    keys = _keyring(settings, asked, keys_file)
    revocations = Revocations()
    verifier = Verifier(settings, audiences=(settings.audience, service), keyring=keys, revocations=revocations)
    introspector = Introspector(asked.introspect, keep_seconds=settings.introspection_seconds)
    outbound = None
    if asked.knows_us:
        outbound = Outbound(asked.token, issuer=issuer, user_token=bearer.user_token)
    try:
        yield Auth(verifier, introspector, outbound, revocations)
    finally:
        await keys.aclose()
        if outbound is not None:
            await outbound.aclose()


def _keyring(settings: AuthSettings, issuer: Issuer, keys_file: Path | None) -> Keyring:
    if settings.jwks_file is None:
        return Keyring(
            issuer.keys, fresh_seconds=settings.keys_seconds, retry_seconds=settings.keys_retry_seconds, disk=keys_file
        )
    try:
        raw = settings.jwks_file.read_bytes()
        keyring.parse(raw)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"auth.jwks_file is not to be read: {type(error).__name__}") from error

    async def fixed() -> bytes:
        return raw

    return Keyring(fixed, fresh_seconds=float("inf"), retry_seconds=settings.keys_retry_seconds)
