"""The registry on Redis: every operation as a typed value.

An operation is pure (script, keys, arguments, how to read the result), so the async and the blocking `runner` share
it. The scripts' headers say what they do and what they keep; here stands what they are sent and what comes back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

from app.mesh.keys import RETENTION_MS, Keys
from app.mesh.registry import record, rules
from app.mesh.registry.record import Instance, Load
from app.mesh.registry.rules import Rule
from app.settings import RegistrySettings

T_co = TypeVar("T_co", covariant=True)

WishedState = Literal["ready", "draining"]

# Enough to say whom a drain waits for; it waits for all.
_LAGGARDS_NAMED = 20


@dataclass(frozen=True, slots=True)
class Position:
    """Where the registry's history stands: which history, how far, and the mark of its last change."""

    epoch: str = ""
    seq: int = 0
    mark: str = ""


class Entry(NamedTuple):
    """One stored record, still unread: what is in Redis is not believed before `record.decode`.

    Args:
        load, lease_end_ms: empty and 0 if they were not asked for.
    """

    service: str
    id: str
    record: bytes
    load: bytes = b""
    lease_end_ms: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one instant; the rules too are still unread: (service, stored rule)."""

    position: Position
    now_ms: int
    entries: tuple[Entry, ...]
    rules: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants of one generation of an instance; `mark` tells it from every other wish."""

    mark: str
    generation: int
    state: WishedState


@dataclass(frozen=True, slots=True)
class Beat:
    """Args:
    position: after this beat; for one that changed something, of that change.
    sweep_due: whether somebody should sweep now.
    """

    outcome: Literal["changed", "same", "refused"]
    position: Position
    wish: Wish | None = None
    sweep_due: bool = False


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
class Laggards:
    """Who has not yet applied a change, as ``<service>:<id>``, at most twenty of them.

    Args:
        known: the change is of the history that Redis knows; otherwise nobody is named, and nothing is said.
    """

    known: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of a wish; ``absent``: no such instance is registered."""

    outcome: Literal["noted", "absent"]
    position: Position


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What became of a rule; ``conflict``: it was changed meanwhile, `revision` is the one to start from."""

    outcome: Literal["changed", "conflict", "same"]
    revision: int
    position: Position


@dataclass(frozen=True, slots=True)
class Operation(Generic[T_co]):
    """One call of a script: what to send, and how to read what comes back."""

    script: str
    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]
    read: Callable[[list[Any]], T_co]


# ------------------------------------------------------------------------------------------- being a member


def heartbeat(
    keys: Keys, settings: RegistrySettings, instance: Instance, load: Load, seen: Position | None = None
) -> Operation[Beat]:
    """Args: seen: what this process's directory has applied; None if it has no directory: no drain waits for it."""
    service = instance.service
    return Operation(
        "heartbeat",
        (
            keys.head, keys.log, keys.services, *_keys_of(keys, service), keys.seen, keys.rules,
            keys.left(service, instance.id), keys.wish(service, instance.id),
        ),
        (
            service, instance.id, instance.generation, record.encode(instance), record.encode_load(load),
            lease_ms(settings), _nonce(), settings.log_length, RETENTION_MS, keys.prefix,
            "" if seen is None else f"{seen.epoch} {seen.seq} {seen.mark}", _sweeps_apart_ms(settings),
        ),
        lambda reply: Beat(cast("Any", text(reply[0])), position(reply[1:4]), _wish(reply[4]), reply[5] == 1),
    )  # fmt: skip


def deregister(keys: Keys, settings: RegistrySettings, instance: Instance) -> Operation[Leave]:
    service = instance.service
    return Operation(
        "deregister",
        (
            keys.head, keys.log, keys.services, *_keys_of(keys, service), keys.seen,
            keys.left(service, instance.id), keys.wish(service, instance.id),
        ),
        (
            service, instance.id, instance.generation, 2 * lease_ms(settings), _nonce(),
            settings.log_length, RETENTION_MS,
        ),
        lambda reply: Leave(cast("Any", text(reply[0])), position(reply[1:4])),
    )  # fmt: skip


def sweep(keys: Keys, settings: RegistrySettings, *, apart_seconds: float | None = None) -> Operation[Sweep]:
    """Args: apart_seconds: shortest time between two sweeps of the whole fleet; a third of a lease if not given."""
    apart_ms = _sweeps_apart_ms(settings) if apart_seconds is None else int(apart_seconds * 1000)
    return Operation(
        "sweep",
        (keys.head, keys.log, keys.services, keys.seen),
        (keys.prefix, lease_ms(settings), apart_ms, _nonce(), settings.log_length, RETENTION_MS),
        lambda reply: Sweep(cast("Any", text(reply[0])), _pairs(reply[1:])),
    )


# ------------------------------------------------------------------------------------------- looking


def snapshot(keys: Keys, *, whole: bool = True) -> Operation[Snapshot]:
    """Args: whole: with load figures and leases; without them, ten thousand records take Redis half as long."""
    return Operation(
        "snapshot",
        (keys.head, keys.services, keys.rules),
        (keys.prefix, record.MAX_RECORD_BYTES, int(whole)),
        _read_snapshot,
    )


def laggards(
    keys: Keys, epoch: str, seq: int, *, mark: str = "", but: tuple[str, str] = ("", "")
) -> Operation[Laggards]:
    """Who has not yet applied change `seq` of history `epoch`.

    Args:
        mark: of that change, to tell it from the one that a stale replica has counted to.
        but: (service, id) of whom not to wait for.
    """
    return Operation(
        "laggards",
        (keys.head, keys.seen, keys.log),
        (keys.prefix, epoch, seq, mark, ":".join(but), _LAGGARDS_NAMED),
        lambda reply: Laggards(reply[0] == 1, tuple(text(name) for name in reply[1:])),
    )


# ------------------------------------------------------------------------------------------- an operator's word


def wish(
    keys: Keys, settings: RegistrySettings, service: str, instance_id: str, state: WishedState
) -> Operation[Noted]:
    """Ask an instance to drain, or to be ready again: it hears of it at once, and does so itself."""
    return Operation(
        "wish",
        (keys.head, keys.log, keys.records(service), keys.wish(service, instance_id)),
        (service, instance_id, state, 2 * lease_ms(settings), _nonce(), settings.log_length, RETENTION_MS),
        lambda reply: Noted(cast("Any", text(reply[0])), position(reply[1:4])),
    )


def put_rule(keys: Keys, settings: RegistrySettings, rule: Rule) -> Operation[RuleSet]:
    """Set a rule that was made from the one with the same revision (0: from none); it gets the next one."""
    return _rule(keys, settings, "put", rule)


def clear_rule(keys: Keys, settings: RegistrySettings, service: str) -> Operation[RuleSet]:
    return _rule(keys, settings, "clear", Rule(service, 0))


def restore_rule(keys: Keys, settings: RegistrySettings, rule: Rule) -> Operation[RuleSet]:
    """Put a rule back that Redis may have lost; does nothing if it has this one or a later one."""
    return _rule(keys, settings, "restore", rule)


def read_rules(keys: Keys) -> Operation[tuple[tuple[str, bytes], ...]]:
    """(service, stored rule) of every service that has one; to be read by `rules.decode`."""
    return Operation("read_rules", (keys.rules,), (record.MAX_RECORD_BYTES,), _raw_pairs)


def _rule(keys: Keys, settings: RegistrySettings, how: str, rule: Rule) -> Operation[RuleSet]:
    return Operation(
        "rule",
        (keys.head, keys.log, keys.rules),
        (rule.service, how, rule.revision, rules.encode(rule), _nonce(), settings.log_length, RETENTION_MS),
        lambda reply: RuleSet(cast("Any", text(reply[0])), int(reply[1]), position(reply[2:5])),
    )


# ------------------------------------------------------------------------------------------- how it is read


def lease_ms(settings: RegistrySettings) -> int:
    return int(settings.lease_seconds * 1000)


def _sweeps_apart_ms(settings: RegistrySettings) -> int:
    return lease_ms(settings) // 3


def _keys_of(keys: Keys, service: str) -> tuple[str, str, str]:
    return keys.records(service), keys.leases(service), keys.loads(service)


def _nonce() -> str:
    # From here, since Redis's own math.random repeats itself in every script.
    return os.urandom(8).hex()


def text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def position(reply: Sequence[Any]) -> Position:
    return Position(text(reply[0]), int(reply[1]), text(reply[2]))


def wished(mark: str, said: str) -> Wish | None:
    """Read ``<generation> <state>``; None if it is nothing that we know."""
    generation, _, state = said.partition(" ")
    if not (generation.isdigit() and state in {"ready", "draining"}):
        return None
    return Wish(mark, int(generation), cast("WishedState", state))


def _wish(value: Any) -> Wish | None:
    mark, _, said = text(value).partition(" ")
    return wished(mark, said)


def _pairs(flat: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    names = [text(value) for value in flat]
    return tuple(zip(names[::2], names[1::2], strict=True))


def _raw_pairs(flat: Sequence[Any]) -> tuple[tuple[str, bytes], ...]:
    return tuple((text(flat[i]), raw(flat[i + 1])) for i in range(0, len(flat), 2))


def _read_snapshot(reply: list[Any]) -> Snapshot:
    entries: list[Entry] = []
    found = reply[4]
    for i in range(0, len(found), 4):
        loads, leases = dict(_raw_pairs(found[i + 2])), dict(_raw_pairs(found[i + 3]))
        service = text(found[i])
        entries += [
            Entry(service, instance_id, stored, loads.get(instance_id, b""), int(float(leases.get(instance_id, 0))))
            for instance_id, stored in _raw_pairs(found[i + 1])
        ]
    return Snapshot(position(reply), int(reply[3]), tuple(entries), _raw_pairs(reply[5]))


@cache
def source(script: str) -> str:
    """The Lua text of `script`, behind the prelude that they share."""
    folder = resources.files("app.mesh.registry") / "scripts"
    return "".join((folder / f"{name}.lua").read_text("utf-8") for name in ("prelude", script))
