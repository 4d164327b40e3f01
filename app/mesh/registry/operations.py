"""The registry on Redis: every operation as a typed value, and the two that run them, on the loop and in a thread.

An operation is pure (script, keys, arguments, how to read the result), so the async and the blocking side share it
and differ only in five lines each. Foreign errors become `errors.Unavailable` here. No call of this room stands on
the path of a request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Generic, Literal, TypeVar, cast

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.errors import Unavailable
from app.mesh.keys import RETENTION_MS, Keys
from app.mesh.registry import record
from app.mesh.registry.record import Instance, Load
from app.settings import RegistrySettings

T = TypeVar("T")

# Long enough for ten thousand records, short enough that nobody waits a minute for a hung Redis (redis-py's default).
CALL_SECONDS = 2.0
CONNECT_SECONDS = 0.5
_WATCH_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Position:
    """Where the registry's history stands: which history, how far, and the mark of its last change."""

    epoch: str = ""
    seq: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored record, still unread: what is in Redis is not believed before `record.decode`."""

    service: str
    id: str
    record: bytes
    load: bytes
    lease_end_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    position: Position
    now_ms: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log; `record` is empty for ``down``."""

    position: Position
    prev: str
    op: Literal["up", "down"]
    service: str
    id: str
    record: bytes


@dataclass(frozen=True, slots=True)
class Beat:
    outcome: Literal["changed", "same", "refused"]
    position: Position


@dataclass(frozen=True, slots=True)
class Leave:
    outcome: Literal["left", "absent", "refused"]
    position: Position


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did, and the (service, id) pairs that it took out."""

    outcome: Literal["empty", "early", "held", "swept"]
    removed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One call of a script: what to send, and how to read what comes back."""

    script: str
    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]
    read: Callable[[list[Any]], T]


def heartbeat(keys: Keys, settings: RegistrySettings, instance: Instance, load: Load) -> Operation[Beat]:
    return Operation(
        "heartbeat",
        (keys.head, keys.log, keys.services, *_keys_of(keys, instance)),
        (
            instance.service, instance.id, instance.generation, record.encode(instance), record.encode_load(load),
            lease_ms(settings), _nonce(), settings.log_length, RETENTION_MS, keys.prefix,
        ),
        lambda reply: Beat(cast("Any", _text(reply[0])), _position(reply[1:4])),
    )  # fmt: skip


def deregister(keys: Keys, settings: RegistrySettings, instance: Instance) -> Operation[Leave]:
    return Operation(
        "deregister",
        (keys.head, keys.log, keys.services, *_keys_of(keys, instance)),
        (
            instance.service, instance.id, instance.generation, 2 * lease_ms(settings), _nonce(),
            settings.log_length, RETENTION_MS,
        ),
        lambda reply: Leave(cast("Any", _text(reply[0])), _position(reply[1:4])),
    )  # fmt: skip


def sweep(keys: Keys, settings: RegistrySettings, *, apart_seconds: float | None = None) -> Operation[Sweep]:
    """Args: apart_seconds: shortest time between two sweeps of the whole fleet; a third of a lease if not given."""
    apart = settings.lease_seconds / 3 if apart_seconds is None else apart_seconds
    return Operation(
        "sweep",
        (keys.head, keys.log, keys.services),
        (keys.prefix, lease_ms(settings), int(apart * 1000), _nonce(), settings.log_length, RETENTION_MS),
        lambda reply: Sweep(cast("Any", _text(reply[0])), _pairs(reply[1:])),
    )


def snapshot(keys: Keys) -> Operation[Snapshot]:
    return Operation("snapshot", (keys.head, keys.services), (keys.prefix, record.MAX_RECORD_BYTES), _read_snapshot)


def lease_ms(settings: RegistrySettings) -> int:
    return int(settings.lease_seconds * 1000)


def _keys_of(keys: Keys, instance: Instance) -> tuple[str, str, str, str]:
    service = instance.service
    return keys.records(service), keys.leases(service), keys.loads(service), keys.left(service, instance.id)


def _nonce() -> str:
    # From here, since Redis's own math.random repeats itself in every script.
    return os.urandom(8).hex()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _position(reply: Sequence[Any]) -> Position:
    return Position(_text(reply[0]), int(reply[1]), _text(reply[2]))


def _pairs(flat: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    names = [_text(value) for value in flat]
    return tuple(zip(names[::2], names[1::2], strict=True))


def _read_snapshot(reply: list[Any]) -> Snapshot:
    flat = reply[4]
    entries = (
        Entry(_text(flat[i]), _text(flat[i + 1]), _bytes(flat[i + 2]), _bytes(flat[i + 3]), int(float(flat[i + 4])))
        for i in range(0, len(flat), 5)
    )
    return Snapshot(_position(reply), int(reply[3]), tuple(entries))


@cache
def source(script: str) -> str:
    """The Lua text of `script`, behind the prelude that they share."""
    folder = resources.files("app.mesh.registry") / "scripts"
    return "".join((folder / f"{name}.lua").read_text("utf-8") for name in ("prelude", script))


def blocking_client(url: str) -> redis.Redis:
    """A client for the presence thread: short timeouts, no hidden repeats (the next beat is the repeat)."""
    return redis.Redis.from_url(
        url, socket_timeout=CONNECT_SECONDS, socket_connect_timeout=CONNECT_SECONDS, retry=Retry(NoBackoff(), 0)
    )


def watch_client(url: str, *, block_seconds: float) -> redis.asyncio.Redis:
    """A client for blocking reads: one connection of its own, whose timeout lies above the longest block."""
    return redis.asyncio.Redis.from_url(
        url,
        protocol=2,  # XREAD's reply has one shape there
        max_connections=2,
        socket_timeout=block_seconds + CONNECT_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=AsyncRetry(NoBackoff(), 0),
    )


class BlockingRegistry:
    """Runs operations from a thread that may wait."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def run(self, operation: Operation[T]) -> T:
        """Raises: Unavailable: Redis is away, hung, or refuses."""
        script = self._client.register_script(source(operation.script))
        try:
            return operation.read(cast("list[Any]", script(keys=operation.keys, args=operation.args)))
        except (redis.RedisError, OSError) as error:
            raise _away(operation.script, error) from error

    def close(self) -> None:
        self._client.close()


class Registry:
    """Runs operations on the event loop; also reads the head and the log, which need no script."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def run(self, operation: Operation[T]) -> T:
        """Raises: Unavailable: Redis is away, refuses, or took longer than `CALL_SECONDS`."""
        script = self._client.register_script(source(operation.script))
        try:
            async with asyncio.timeout(CALL_SECONDS):
                reply = await script(keys=operation.keys, args=operation.args)
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise _away(operation.script, error) from error
        return operation.read(reply)

    async def snapshot(self) -> Snapshot:
        return await self.run(snapshot(self._keys))

    async def position(self) -> Position:
        """Where the history stands now; an empty `Position` if there is none. Raises: Unavailable."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                epoch, seq, mark = await self._client.hmget(self._keys.head, ["epoch", "seq", "mark"])
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise _away("position", error) from error
        return Position() if epoch is None or seq is None or mark is None else _position((epoch, seq, mark))

    async def changes(self, after_seq: int, *, block_seconds: float) -> list[Change]:
        """The next changes after `after_seq`, waiting up to `block_seconds` for the first. Raises: Unavailable."""
        try:
            reply = await self._client.xread(
                {self._keys.log: f"{after_seq}-0"}, count=_WATCH_BATCH, block=max(1, int(block_seconds * 1000))
            )
        except (redis.RedisError, OSError, TimeoutError) as error:
            raise _away("watch", error) from error
        streams = cast("list[tuple[Any, list[tuple[bytes, dict[bytes, bytes]]]]]", reply)
        return [_change(key, fields) for _, entries in streams for key, fields in entries]


def _change(key: bytes, fields: dict[bytes, bytes]) -> Change:
    # What stands in no field reads as a gap later on, which a snapshot then fills.
    field = {_text(name): _bytes(value) for name, value in fields.items()}
    seq = int(_text(key).partition("-")[0])
    return Change(
        position=Position(_text(field.get("epoch", b"")), seq, _text(field.get("mark", b""))),
        prev=_text(field.get("prev", b"")),
        op="up" if field.get("op") == b"up" else "down",
        service=_text(field.get("service", b"")),
        id=_text(field.get("id", b"")),
        record=field.get("record", b""),
    )


def _away(what: str, error: Exception) -> Unavailable:
    return Unavailable(f"Registry, {what}: {type(error).__name__}", retry_after=1.0)
