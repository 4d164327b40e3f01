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


class Observer(Protocol):
    """Called inline on the event loop (`registry_contact` also from the presence thread): must not block or raise."""

    def attempt(self, details: Attempt, /) -> None: ...

    def directory_changed(self, details: DirectoryChange, /) -> None: ...

    def registry_contact(self, details: RegistryContact, /) -> None: ...


class NullObserver:
    """Looks away."""

    def attempt(self, details: Attempt, /) -> None:
        """Nothing to do."""

    def directory_changed(self, details: DirectoryChange, /) -> None:
        """Nothing to do."""

    def registry_contact(self, details: RegistryContact, /) -> None:
        """Nothing to do."""
