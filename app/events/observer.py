"""Hooks: what events tell about themselves, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

Outcome = Literal["done", "known", "again", "waiting", "dead", "expired", "cancelled"]
Notice = Literal[
    "rebuilt", "healed", "inherited", "trimmed_unread", "lost", "purged_unread", "relay_leading", "relay_lost"
]


class Handling(NamedTuple):
    """A handler was run once, or needed not to be.

    Args:
        type: of the event, as in ``orders.placed``.
        outcome: ``done``; ``known``: it had its effect before; ``again``: it failed and is tried again; ``waiting``: as
            ``again``, for want of a database; ``dead``: a dead letter now; ``expired``: too late; ``cancelled``: the process stops.
        seconds: how long it took.
        age_seconds: since it was published.
    """

    type: str
    outcome: Outcome
    seconds: float
    age_seconds: float


class Measurement(NamedTuple):
    """What the process that sends a service's events sees now and then.

    Args:
        service: whose outbox, streams and dead letters.
        waiting: events that are due and not yet sent.
        oldest_seconds: since the first of those was due.
        lags: for each group that hears the service, how many events it was not given, up to a bound.
        open: for each group, how many it was given and has not finished.
        dead: how many dead letters the service has. These three are None while Redis is away.
    """

    service: str
    waiting: int
    oldest_seconds: float
    lags: Mapping[str, int] | None = None
    open: Mapping[str, int] | None = None
    dead: int | None = None


class EventObserver(Protocol):
    """Called inline on the event loop: must not block or raise."""

    def published(self, type_: str, count: int, /) -> None:
        """So many events of one type have reached their streams."""

    def handled(self, details: Handling, /) -> None: ...

    def noticed(self, notice: Notice, stream: str, count: int = 1, /) -> None:
        """Something that an operator may want to count: `stream` names whose events are concerned."""

    def measured(self, details: Measurement | None, /) -> None:
        """How much waits; None: it is another process's turn to say."""


class NullObserver:
    """Looks away."""

    def published(self, type_: str, count: int, /) -> None:
        """Nothing to do."""

    def handled(self, details: Handling, /) -> None:
        """Nothing to do."""

    def noticed(self, notice: Notice, stream: str, count: int = 1, /) -> None:
        """Nothing to do."""

    def measured(self, details: Measurement | None, /) -> None:
        """Nothing to do."""
