"""The issuer's public keys, kept at hand.

    a key that is known ─► that, at once; if the set has grown old, it is fetched anew meanwhile
    one that is not     ─► fetch, once for all who wait and at most every few seconds; then that, or nobody knows it

While the issuer is away the last good set counts for as long as it lasts, also for a process that has just started: it is
kept on disk.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey

from app import telemetry
from app.auth.algorithms import CURVES, fits
from app.errors import PlatformError, Unavailable

_log = telemetry.log("auth.keyring")

_RETRY_AFTER_SECONDS = 1.0
_KINDS: Mapping[str, type[ECKey | OKPKey]] = {"EC": ECKey, "OKP": OKPKey}

Fetch = Callable[[], Awaitable[bytes]]


class Keyring:
    """Keys by their id.

    Args:
        fetch: the issuer's JWK set; raises a `PlatformError` if it is not to be had.
        fresh_seconds: a set that is older is fetched anew in the background.
        retry_seconds: an unknown key makes us ask again at most this often.
        disk: where the last good set is kept; None for nowhere.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        fresh_seconds: float,
        retry_seconds: float,
        disk: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._clock, self._disk = fetch, clock, disk
        self._fresh_seconds, self._retry_seconds = fresh_seconds, retry_seconds
        self._keys: Mapping[str, Key] = _from_disk(disk)
        self._fetched_at = self._asked_at = float("-inf")
        self._flight: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(self._keys) or 'empty'}>"

    async def find(self, kid: str, algorithm: str) -> Key | None:
        """The key `kid`, if there is one and it is for `algorithm`.

        Raises:
            Unavailable: no key was ever had, and the issuer is away.
        """
        key = self._keys.get(kid)
        now = self._clock()
        if key is None and (now - self._asked_at >= self._retry_seconds or self._flight is not None):
            await self._renewed()
            key = self._keys.get(kid)
        elif now - self._fetched_at >= self._fresh_seconds and now - self._asked_at >= self._retry_seconds:
            self._start()
        if not self._keys:
            raise Unavailable("The issuer's keys are not to be had now", retry_after=_RETRY_AFTER_SECONDS)
        return key if key is not None and fits(key, algorithm) else None

    def warm(self) -> None:
        """Fetch the keys before the first request wants them."""
        self._start()

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    def describe(self) -> dict[str, Any]:
        age = self._clock() - self._fetched_at
        return {"keys": sorted(self._keys), "age_seconds": None if age == float("inf") else round(age, 3)}

    async def _renewed(self) -> None:
        # Whoever waits may leave; the others go on waiting.
        await asyncio.shield(self._start())

    def _start(self) -> asyncio.Task[None]:
        if self._flight is None:
            self._asked_at = self._clock()
            # In a context of its own: the deadline of the request that comes first is not everybody's.
            self._flight = asyncio.create_task(self._renew(), name="auth.keyring", context=contextvars.Context())
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, _: asyncio.Task[None]) -> None:
        self._flight = None

    async def _renew(self) -> None:
        try:
            raw = await self._fetch()
            keys = parse(raw)
        except PlatformError as error:
            _log.warning("the issuer's keys could not be fetched", reason=error.code, kept=len(self._keys))
            return
        except ValueError as error:
            _log.warning("the issuer's keys are not a key set", reason=type(error).__name__, kept=len(self._keys))
            return
        self._fetched_at = self._clock()
        if keys.keys() != self._keys.keys():
            _log.info("the issuer's keys", keys=sorted(keys))
        self._keys = keys
        if self._disk is not None:
            await asyncio.to_thread(_to_disk, self._disk, raw)


def parse(raw: bytes) -> Mapping[str, Key]:
    """The keys of a JWK set (RFC 7517) that can verify what we believe, by id; others are passed over.

    Raises:
        ValueError: it is not a JWK set, or none of its keys is of use.
    """
    document = orjson.loads(raw)
    entries = document.get("keys") if isinstance(document, dict) else None
    entries = entries if isinstance(entries, list) else []
    keys = {entry["kid"]: key for entry in entries if (key := _key(entry)) is not None}
    if not keys:
        raise ValueError("no JWK set, or no key of use in it")
    return keys


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    kind = _KINDS.get(str(entry.get("kty")))
    if kind is None:
        return None
    # A private part that somebody has published by mistake is not read.
    public = {name: value for name, value in entry.items() if name != "d"}
    try:
        key = kind.import_key(public)
    except (JoseError, ValueError, TypeError):
        return None
    return key if any(fits(key, algorithm) for algorithm in CURVES) else None


def _from_disk(path: Path | None) -> Mapping[str, Key]:
    if path is None:
        return {}
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _to_disk(path: Path, raw: bytes) -> None:
    # Replicas share it: each writes a file of its own, and replaces the old one as a whole.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(raw)
        part.replace(path)
