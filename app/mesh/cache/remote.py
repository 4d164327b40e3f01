"""The tier in Redis: every operation as one atomic step, and what it says read into values. No decision is made here."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import orjson

from app import telemetry
from app.mesh.cache import codec
from app.mesh.cache.codec import Payload
from app.mesh.coordination import line as lines
from app.mesh.coordination.line import Line
from app.mesh.keys import RETENTION_MS, Keys
from app.settings import CacheSettings

_log = telemetry.log("mesh.cache")

_PRELUDES = (lines.ANNOUNCE, ("app.mesh.cache", "prelude"))
_CLAIM, _STORE, _PUT, _INVALIDATE = (
    lines.load("app.mesh.cache", name, *_PRELUDES) for name in ("claim", "store", "put", "invalidate")
)
_RELEASE = lines.load("app.mesh.coordination", "release")

LOG_LENGTH = 1000
# Besides its bytes: the head, with the tags and their versions.
_HEAD_BYTES = 16_384

# What is invalidated goes by one name for both kinds, in the log and in this process.
KEY, TAG = "key:", "tag:"
# Every value has it, so that all of them can be invalidated at once.
EVERYTHING = "*"

Mode = Literal["read", "load", "refresh"]
Args = tuple[str | bytes | int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as it stands in Redis; times are seconds, from Redis's now."""

    payload: Payload
    stamp: str
    age: float
    fresh_for: float
    usable_for: float
    cost: float
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What Redis says to somebody who wants a value.

    Args:
        verdict: ``hit``: here it is, fresh; ``lead``: load it, the others wait; ``wait``: somebody else is at it.
        stored: with a hit, the value; ``none``: the valid one, fresh or stale, or None.
        word, stamp, versions: what `Remote.store` has to say to be believed.
    """

    verdict: Literal["hit", "lead", "wait", "none"]
    stored: Stored | None
    word: str
    stamp: str
    versions: tuple[tuple[str, str], ...]


class Remote:
    """Args: origin: this process, as the others see it in the log."""

    def __init__(self, line: Line, keys: Keys, settings: CacheSettings) -> None:
        self.line, self._keys, self._settings = line, keys, settings
        self.origin = os.urandom(8).hex()

    def __repr__(self) -> str:
        return f"<Remote {self.line!r}>"

    async def claim(self, key: str, tags: Collection[str], *, mode: Mode, word: str = "", known: str = "") -> Claim:
        """Read `key`, and claim its load unless it is fresh.

        Args:
            tags: of the value that would be loaded.
            word: the claimant's own; the same with every repeat.
            known: for ``refresh``, the stamp of the value at hand: another one is a hit.

        Raises:
            Unavailable: Redis is away.
        """
        names = (EVERYTHING, *tags) if mode != "read" else ()
        most = self._settings.max_value_bytes + _HEAD_BYTES
        args: Args = (mode, word, self._lock_ms, self._hold_ms, most, self._keys.cache_tags, known, *names)
        undo = (lambda: self.release(key, word)) if mode != "read" else None
        reply: list[bytes] = await self.line.run(_CLAIM, self._keys_of(key), args, undo=undo)
        state, raw, now_ms, verdict, stamp, *versions = reply
        return Claim(
            verdict=cast(Any, verdict.decode()),
            stored=_read(key, state, raw, int(now_ms)),
            word=word,
            stamp=stamp.decode("utf-8", "replace"),
            versions=tuple(zip(names, (version.decode() for version in versions), strict=True)) if versions else (),
        )

    async def store(
        self, key: str, claim: Claim, payload: Payload, *, fresh: float, usable: float, cost: float
    ) -> bool:  # fmt: skip
        """Store what was loaded after `claim`; False if it has become old meanwhile. Raises: Unavailable."""
        versions = [word for pair in claim.versions for word in pair]
        args: Args = (
            claim.word, claim.stamp, self._settings.max_value_bytes + _HEAD_BYTES, self._keys.cache_tags,
            payload.kind, _ms(fresh), _ms(usable), int(cost * 1000), payload.data, *versions,
        )  # fmt: skip
        return bool(await self.line.run(_STORE, self._keys_of(key), args) == b"stored")

    async def put(
        self, key: str, payload: Payload, tags: Collection[str], *, word: str, fresh: float, usable: float
    ) -> None:  # fmt: skip
        """Store a value that was set, and tell every process. Raises: Unavailable."""
        args: Args = (
            word, self.origin, KEY + key, LOG_LENGTH, RETENTION_MS, self._keys.cache_tags,
            payload.kind, _ms(fresh), _ms(usable), payload.data, EVERYTHING, *tags,
        )  # fmt: skip
        await self.line.run(_PUT, (self._keys.cached(key), self._keys.cache_log), args)

    async def release(self, key: str, word: str) -> None:
        """Let somebody else load. Raises: Unavailable."""
        await self.line.run(_RELEASE, (self._keys.cache_lock(key),), (word,))

    async def invalidate(self, names: Sequence[str]) -> None:
        """Invalidate tags and delete keys, by their names in the log, and tell every process. Raises: Unavailable."""
        keys = [self._key_of(name) for name in names]
        args: Args = (self.origin, LOG_LENGTH, RETENTION_MS, *names)
        await self.line.run(_INVALIDATE, (self._keys.cache_log, *keys), args)

    def _key_of(self, name: str) -> str:
        if name.startswith(TAG):
            return self._keys.cache_tags + name.removeprefix(TAG)
        return self._keys.cached(name.removeprefix(KEY))

    def _keys_of(self, key: str) -> tuple[str, str]:
        return self._keys.cached(key), self._keys.cache_lock(key)

    @property
    def _lock_ms(self) -> int:
        return _ms(self._settings.lock_seconds)

    @property
    def _hold_ms(self) -> int:
        # As long as a load may take, and then some: what it was told must still stand when it is done.
        return _ms(self._settings.load_seconds + 2 * self._settings.lock_seconds)


def new_word() -> str:
    """A random word: who claims, who stores."""
    return os.urandom(10).hex()


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _read(key: str, state: bytes, raw: bytes, now_ms: int) -> Stored | None:
    """What is not as it should be is absent; a warning tells of it."""
    if state == b"poisoned":
        _log.warning("poisoned cache value ignored", key=key[:80], reason="not a value of ours, or too large")
        return None
    if not raw:
        return None
    head, _, data = raw.partition(b"\n")
    try:
        return _parse(orjson.loads(head), data, now_ms)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("poisoned cache value ignored", key=key[:80], reason=f"{type(error).__name__}: {error}"[:200])
        return None


def _parse(head: dict[str, Any], data: bytes, now_ms: int) -> Stored:
    return Stored(
        payload=codec.check(head["k"], data),
        stamp=str(head["s"]),
        age=max(0.0, (now_ms - int(head["m"])) / 1000),
        fresh_for=(int(head["e"]) - now_ms) / 1000,
        usable_for=(int(head["u"]) - now_ms) / 1000,
        cost=max(0.0, float(head["d"]) / 1000),
        tags=frozenset(head["t"]) - {EVERYTHING},
    )
