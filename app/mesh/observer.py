"""Hooks: what the mesh tells about itself, as frozen values, so that it never imports a metrics library."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol


# Named tuples: made once per call on the hot path, where a frozen dataclass costs four times as much.
class Attempt(NamedTuple):
    """One attempt at one peer has ended.

    Args:
        status: the reply's HTTP status, 0 when there was none.
        error: the error's stable code (``peer_unreachable`` …), empty when there was a reply.
        number: 1 for the first attempt of a call.
        seconds: how long it took; for a streamed reply, until its head.
        retrying: whether another attempt follows.
    """

    service: str
    instance: str
    method: str
    number: int
    status: int
    error: str
    seconds: float
    retrying: bool


class DirectoryChange(NamedTuple):
    """The local list of peers has changed; the figures are those of the whole new list."""

    source: Literal["snapshot", "watch", "disk", "grace"]
    epoch: str
    seq: int
    services: int
    instances: int


class RegistryContact(NamedTuple):
    """The registry has become reachable or unreachable for one of the rooms that talk to it."""

    room: Literal["directory", "presence"]
    healthy: bool


Kind = Literal[
    "breaker", "ejection", "hedge", "fallback", "flight", "suspect", "drain", "shed", "cache", "lock", "leader", "rate",
    "retry", "auth",
]  # fmt: skip


class Decision(NamedTuple):
    """Something was decided that an operator may want to count.

    Args:
        kind: which mechanism decided.
        service: about whom: the peer's service, a cache's, a lock's or a job's name; never of unbounded variety.
        outcome: a word from a short list of the mechanism's own, as in ``open``, ``half_open``, ``closed``.
        instance: the one concerned, if it is about one; not a metric's label.
        detail: for the reader of a log.
    """

    kind: Kind
    service: str
    outcome: str
    instance: str = ""
    detail: str = ""


class Observer(Protocol):
    """Called inline on the event loop (`registry_contact` also from the presence thread): must not block or raise."""

    def attempt(self, details: Attempt, /) -> None: ...

    def directory_changed(self, details: DirectoryChange, /) -> None: ...

    def registry_contact(self, details: RegistryContact, /) -> None: ...

    def decision(self, details: Decision, /) -> None: ...


class NullObserver:
    """Looks away."""

    def attempt(self, details: Attempt, /) -> None:
        """Nothing to do."""

    def directory_changed(self, details: DirectoryChange, /) -> None:
        """Nothing to do."""

    def registry_contact(self, details: RegistryContact, /) -> None:
        """Nothing to do."""

    def decision(self, details: Decision, /) -> None:
        """Nothing to do."""
