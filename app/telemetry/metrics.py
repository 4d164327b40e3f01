"""Metrics: one Prometheus registry per process, because one process is one instance and one event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.telemetry.database import Database, DatabaseCollector

# From below a bare hop on one machine to the longest request that the platform allows.
_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER = "OTHER"

# A route is a template of the service's own; the bound only holds against a caller that passes raw paths.
_MAX_ROUTES = 500


class InFlight:
    """The number of requests being served: a plain integer that Prometheus reads when it asks."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1

    @contextmanager
    def track(self) -> Iterator[None]:
        self.value += 1
        try:
            yield
        finally:
            self.value -= 1


class Metrics:
    """One process's Prometheus registry: requests, process, garbage collector, event loop."""

    def __init__(self, *, service: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they leave it unannotated
        self.service = service
        self.registry = CollectorRegistry()
        self.in_flight = InFlight()
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._routes: set[str] = set()
        self._requests = Counter(
            "mesh_requests",
            "Requests answered.",
            ("service", "method", "route", "status"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "mesh_request_duration_seconds",
            "Time from the request's head to the last byte of its answer.",
            ("service", "method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._lag = Gauge(
            "mesh_event_loop_lag_seconds",
            "How late the event loop last woke up.",
            registry=self.registry,
        )
        in_flight = Gauge(
            "mesh_requests_in_flight",
            "Requests being served.",
            ("service",),
            registry=self.registry,
        )
        in_flight.labels(service).set_function(lambda: float(self.in_flight.value))
        self._collect_process()

    def _collect_process(self) -> None:
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)

    def observe_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            method: as sent; one that HTTP does not define counts as ``OTHER``.
            route: the template, as ``/users/<int:user_id>``; empty when no route matched.
            status: of the answer, 0 when the client went away before one.
        """
        children = self._children.get((method, route, status))
        if children is None:
            children = self._child(method, route, status)
        children[0].inc()
        children[1].observe(seconds)

    def _child(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        known_method = method if method in _METHODS else OTHER
        known_route = route if route in self._routes or len(self._routes) < _MAX_ROUTES else OTHER
        self._routes.add(known_route)
        children = (
            self._requests.labels(self.service, known_method, known_route, str(status)),
            self._durations.labels(self.service, known_method, known_route),
        )
        if (known_method, known_route) == (method, route):
            self._children[method, route, status] = children
        return children

    @property
    def requests_in_flight(self) -> int:
        return self.in_flight.value

    def observe_loop_lag(self, seconds: float) -> None:
        self._lag.set(seconds)

    def follow_serving(
        self, *, limit: Callable[[], float], waiting: Callable[[], float], lag_seconds: Callable[[], float]
    ) -> None:
        """Show what serving says of itself, whenever Prometheus asks.

        Args:
            limit: how many requests may wait for their answer at once.
            waiting: how many do.
            lag_seconds: how late the event loop is.
        """
        for name, documentation, read in (
            ("mesh_concurrency_limit", "Requests that may wait for their answer at once.", limit),
            ("mesh_concurrency_waiting", "Requests that wait for their answer.", waiting),
        ):
            Gauge(name, documentation, registry=self.registry).set_function(read)
        self._lag.set_function(lag_seconds)

    def follow_database(self, database: Database) -> None:
        """Show how the pools of the process's database stand, whenever Prometheus asks."""
        self.registry.register(DatabaseCollector(database))

    def render(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type."""
        return prometheus_client.generate_latest(self.registry), prometheus_client.CONTENT_TYPE_LATEST


class _Attempt(Protocol):
    """What is read of an attempt at a peer; the mesh, which is above, makes it."""

    @property
    def service(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def error(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def retrying(self) -> bool: ...


class _DirectoryChange(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def services(self) -> int: ...
    @property
    def instances(self) -> int: ...


class _RegistryContact(Protocol):
    @property
    def room(self) -> str: ...
    @property
    def healthy(self) -> bool: ...


class _Decision(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def outcome(self) -> str: ...


class MeshMetrics:
    """The mesh's observer that counts; peers are told apart by service, not by instance, which come and go."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._children: dict[tuple[str, str, int, str], tuple[Counter, Histogram]] = {}
        self._attempts = Counter(
            "mesh_attempts",
            "Attempts at peers; the outcome is a status or the code of an error.",
            ("peer", "method", "outcome"),
            registry=registry,
        )
        self._durations = Histogram(
            "mesh_attempt_duration_seconds",
            "Time until a peer's reply, or the head of a streamed one.",
            ("peer",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._retries = Counter("mesh_retries", "Attempts followed by another.", ("peer",), registry=registry)
        self._decisions = Counter(
            "mesh_decisions",
            "What the mesh decided, by mechanism: breaker, ejection, hedge, fallback, shed, cache …",
            ("kind", "subject", "outcome"),
            registry=registry,
        )
        # By their labels: finding a counter costs more than counting, and a hit in the cache is a decision too.
        self._decided: dict[tuple[str, str, str], Counter] = {}
        self._changes = Counter(
            "mesh_directory_changes", "Changes of the list of peers.", ("source",), registry=registry
        )
        self._services = Gauge("mesh_directory_services", "Services in the list of peers.", registry=registry)
        self._instances = Gauge("mesh_directory_instances", "Instances in the list of peers.", registry=registry)
        self._seq = Gauge("mesh_directory_seq", "The last change of the registry seen.", registry=registry)
        self._reachable = Gauge(
            "mesh_registry_reachable", "1 while the registry answers, else 0.", ("room",), registry=registry
        )

    def attempt(self, details: _Attempt, /) -> None:
        key = (details.service, details.method, details.status, details.error)
        children = self._children.get(key)
        if children is None:
            children = self._child(*key)
        children[0].inc()
        children[1].observe(details.seconds)
        if details.retrying:
            self._retries.labels(details.service).inc()

    def _child(self, service: str, method: str, status: int, error: str) -> tuple[Counter, Histogram]:
        known_method = method if method in _METHODS else OTHER
        children = (
            self._attempts.labels(service, known_method, error or str(status)),
            self._durations.labels(service),
        )
        if known_method == method:
            self._children[service, method, status, error] = children
        return children

    def directory_changed(self, details: _DirectoryChange, /) -> None:
        self._changes.labels(details.source).inc()
        self._services.set(details.services)
        self._instances.set(details.instances)
        self._seq.set(details.seq)

    def registry_contact(self, details: _RegistryContact, /) -> None:
        self._reachable.labels(details.room).set(1 if details.healthy else 0)

    def decision(self, details: _Decision, /) -> None:
        key = (details.kind, details.service, details.outcome)
        counter = self._decided.get(key)
        if counter is None:
            counter = self._decided[key] = self._decisions.labels(*key)
        counter.inc()
