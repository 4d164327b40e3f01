"""Tokens for calls to peers: our own (client credentials), or in a user's name (token exchange, RFC 8693).

    at hand? ─► that; when four fifths of its life are over, another one is fetched meanwhile
       │ no
       ▼
    fetched once for all who wait ─► kept for as long as it lives, also while the issuer is away

Each is for one service alone, so that nobody who gets one can use it elsewhere.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from app import telemetry
from app.errors import NoCredentials, PlatformError

_log = telemetry.log("auth.outbound")

_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name, not a secret
_RENEW_SHARE = 0.8
# A token is not used in its last moments: it has to reach the peer.
_MARGIN_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_MOST_KEPT = 10_000

# Asks the token endpoint as this client; raises a `PlatformError` if it gives none.
Ask = Callable[[Mapping[str, str]], Awaitable[Mapping[str, Any]]]
_Key = tuple[str, bytes]


class _Answer(BaseModel):
    """What is read of a token response (RFC 6749, 5.1)."""

    access_token: str
    expires_in: float = 60.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its times, in monotonic seconds."""

    value: str
    given_at: float
    renew_at: float
    expires_at: float

    def counts(self, now: float) -> bool:
        return now < self.expires_at - _MARGIN_SECONDS


class Outbound:
    """The tokens of one process.

    Args:
        issuer: the service that gives them, and is called without one.
        user_token: the token of the user whose request is being served here, if there is one.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        issuer: str,
        user_token: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._issuer, self._user_token, self._clock = ask, issuer, user_token, clock
        self._tokens: dict[_Key, Token] = {}
        self._flights: dict[_Key, asyncio.Task[Token]] = {}
        self._not_before: dict[_Key, float] = {}

    def __repr__(self) -> str:
        return f"<Outbound, {len(self._tokens)} tokens, {len(self._flights)} being fetched>"

    def wanted(self, service: str) -> bool:
        """Whether calls to `service` carry a token."""
        return service != self._issuer

    def at_hand(self, service: str, *, as_user: bool) -> str | None:
        """A token for `service`, if it costs no waiting. Raises: NoCredentials: as `fetch`."""
        subject = self._subject(service, as_user=as_user)
        key, now = _key(service, subject), self._clock()
        token = self._tokens.get(key)
        if token is None or not token.counts(now):
            return None
        if now >= token.renew_at and key not in self._flights and now >= self._not_before.get(key, 0.0):
            self._start(key, service, subject)
        return token.value

    async def fetch(self, service: str, *, as_user: bool) -> str:
        """A token for `service`.

        Raises:
            NoCredentials: the issuer is away or refuses; or no user stands behind this request.
        """
        token = self.at_hand(service, as_user=as_user)
        if token is not None:
            return token
        subject = self._subject(service, as_user=as_user)
        key = _key(service, subject)
        if key not in self._flights and self._clock() < self._not_before.get(key, 0.0):
            raise NoCredentials(f"The issuer gave no token for {service} just now", retry_after=_RETRY_SECONDS)
        # Whoever waits may leave; the others go on waiting.
        return (await asyncio.shield(self._flights.get(key) or self._start(key, service, subject))).value

    def refused(self, service: str, token: str) -> None:
        """`service` does not believe this token: the next call gets another one, unless this one is new itself."""
        # Where even a new one is refused, another would be too: the issuer is not asked for one with every call.
        old = self._clock() - _RETRY_SECONDS
        for key, kept in list(self._tokens.items()):
            if key[0] == service and kept.value == token and kept.given_at <= old:
                del self._tokens[key]

    async def aclose(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def describe(self) -> dict[str, Any]:
        now = self._clock()
        own = {service: kept for (service, subject), kept in self._tokens.items() if not subject}
        return {
            "own_tokens_seconds_left": {service: round(kept.expires_at - now, 1) for service, kept in own.items()},
            "exchanged_tokens": len(self._tokens) - len(own),
        }

    def _subject(self, service: str, *, as_user: bool) -> str | None:
        if not as_user:
            return None
        subject = self._user_token()
        if subject is None:
            raise NoCredentials(f"{service} was to be called in a user's name, and no user is there")
        return subject

    def _start(self, key: _Key, service: str, subject: str | None) -> asyncio.Task[Token]:
        # In a context of its own: the deadline of the request that comes first is not everybody's.
        flight = asyncio.create_task(
            self._obtain(key, service, subject), name="auth.outbound", context=contextvars.Context()
        )
        self._flights[key] = flight
        flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: _Key, flight: asyncio.Task[Token]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # those who wait have it; in the background nobody does, and the log has it

    async def _obtain(self, key: _Key, service: str, subject: str | None) -> Token:
        try:
            answer = _Answer.model_validate(await self._ask(_form(service, subject)))
        except (PlatformError, ValidationError) as error:
            reason = error.code if isinstance(error, PlatformError) else "not a token response"
            _log.warning("no token for a peer", peer=service, as_user=subject is not None, reason=reason)
            self._hold_back(key)
            raise NoCredentials(f"The issuer gives no token for {service}", retry_after=_RETRY_SECONDS) from error
        now = self._clock()
        token = Token(answer.access_token, now, now + _RENEW_SHARE * answer.expires_in, now + answer.expires_in)
        self._keep(key, token, now)
        return token

    def _hold_back(self, key: _Key) -> None:
        now = self._clock()
        if len(self._not_before) >= _MOST_KEPT:
            self._not_before = {held: until for held, until in self._not_before.items() if until > now}
        self._not_before[key] = now + _RETRY_SECONDS

    def _keep(self, key: _Key, token: Token, now: float) -> None:
        self._not_before.pop(key, None)
        if len(self._tokens) >= _MOST_KEPT:
            over = [old for old, kept in self._tokens.items() if not kept.counts(now)]
            # If all of them count, the oldest goes.
            for old in over or [next(iter(self._tokens))]:
                del self._tokens[old]
        self._tokens[key] = token


def _key(service: str, subject: str | None) -> _Key:
    return service, b"" if subject is None else hashlib.sha256(subject.encode()).digest()


def _form(service: str, subject: str | None) -> dict[str, str]:
    if subject is None:
        return {"grant_type": "client_credentials", "audience": service}
    return {
        "grant_type": _EXCHANGE,
        "audience": service,
        "subject_token": subject,
        "subject_token_type": _ACCESS_TOKEN,
    }
