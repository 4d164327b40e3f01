"""Events in Prometheus's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from app.telemetry.metrics import Metrics

# From a commit that wakes the relay at once to what waited for a Redis or a database to come back.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class _Handling(Protocol):
    """What is read of the handling of an event; the room of events, which is above, makes it."""

    @property
    def type(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def age_seconds(self) -> float: ...


class _Measurement(Protocol):
    """What is read of a measurement; as `_Handling`."""

    @property
    def service(self) -> str: ...
    @property
    def waiting(self) -> int: ...
    @property
    def oldest_seconds(self) -> float: ...
    @property
    def lags(self) -> Mapping[str, int] | None: ...
    @property
    def open(self) -> Mapping[str, int] | None: ...
    @property
    def dead(self) -> int | None: ...


class EventMetrics:
    """The observer of events that counts."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._published = Counter(
            "mesh_events_published", "Events that have reached their streams.", ("type",), registry=registry
        )
        self._handled = Counter(
            "mesh_events_handled",
            "Runs of handlers, and what they led to: done, known, again, waiting, dead, expired, cancelled.",
            ("type", "outcome"),
            registry=registry,
        )
        self._durations = Histogram(
            "mesh_event_handler_seconds", "How long handlers ran.", ("type",), buckets=_BUCKETS, registry=registry
        )
        self._ages = Histogram(
            "mesh_event_age_seconds",
            "From an event's publication to its effect.",
            ("type",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._notices = Counter(
            "mesh_events_noticed",
            "What an operator may want to know: rebuilt, healed, inherited, trimmed_unread, lost, purged_unread.",
            ("notice", "subject"),
            registry=registry,
        )
        # One process of a service shows these: they are about what all of its processes share.
        self._waiting, self._oldest, self._lag, self._open, self._dead = (
            Gauge(name, documentation, labels, registry=registry)
            for name, documentation, labels in (
                ("mesh_outbox_waiting", "Events that are due and not yet sent.", ("service",)),
                ("mesh_outbox_oldest_seconds", "Since the first of those was due.", ("service",)),
                ("mesh_events_lag", "Events that a group was not yet given, up to a bound.", ("service", "group")),
                ("mesh_events_open", "Events that a group was given and has not finished.", ("service", "group")),
                ("mesh_events_dead", "Dead letters of a group.", ("group",)),
            )
        )

    def published(self, type_: str, count: int, /) -> None:
        self._published.labels(type_).inc(count)

    def handled(self, details: _Handling, /) -> None:
        self._handled.labels(details.type, details.outcome).inc()
        self._durations.labels(details.type).observe(details.seconds)
        if details.outcome == "done":
            self._ages.labels(details.type).observe(details.age_seconds)

    def noticed(self, notice: str, stream: str, count: int = 1, /) -> None:
        self._notices.labels(notice, stream).inc(count)

    def measured(self, details: _Measurement | None, /) -> None:
        for gauge in (self._waiting, self._oldest, self._lag, self._open, self._dead):
            gauge.clear()
        if details is None:
            return
        self._waiting.labels(details.service).set(details.waiting)
        self._oldest.labels(details.service).set(details.oldest_seconds)
        for gauge, counts in ((self._lag, details.lags), (self._open, details.open)):
            for group, count in (counts or {}).items():
                gauge.labels(details.service, group).set(count)
        if details.dead is not None:
            self._dead.labels(details.service).set(details.dead)
