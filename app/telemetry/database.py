"""The database's pools as Prometheus sees them: read when it asks, so that a query costs nothing for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Pool(Protocol):
    """How a pool stands; the data room, which is above, makes it."""

    @property
    def limit(self) -> int: ...
    @property
    def checked_out(self) -> int: ...
    @property
    def idle(self) -> int: ...
    @property
    def overflow(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def opened(self) -> int: ...
    @property
    def lost(self) -> int: ...


class Database(Protocol):
    """What is asked of a database."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """By the name of the server."""

    @property
    def again(self) -> Mapping[str, int]:
        """How often something was tried again, by the reason."""

    @property
    def replica_is_asked(self) -> bool | None:
        """None if there is none."""


_GAUGES = {
    "limit": ("mesh_database_connections_limit", "Connections at most."),
    "checked_out": ("mesh_database_connections_checked_out", "Connections in use or being opened."),
    "idle": ("mesh_database_connections_idle", "Connections that wait for work."),
    "overflow": ("mesh_database_connections_overflow", "Connections beyond the pool's size."),
    "waiting": ("mesh_database_connections_waiting", "Who waits for a connection."),
}
_COUNTERS = {
    "opened": ("mesh_database_connections_opened", "Connections opened."),
    "lost": ("mesh_database_connections_lost", "Connections found broken."),
}


class DatabaseCollector(Collector):
    """Args:
    database: asked whenever Prometheus asks.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        pools = self._database.pools
        for figure, (name, documentation) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, documentation, labels=("server",))
            for server, pool in pools.items():
                gauge.add_metric((server,), getattr(pool, figure))
            yield gauge
        for figure, (name, documentation) in _COUNTERS.items():
            counter = CounterMetricFamily(name, documentation, labels=("server",))
            for server, pool in pools.items():
                counter.add_metric((server,), getattr(pool, figure))
            yield counter
        yield self._again()
        asked = self._database.replica_is_asked
        if asked is not None:
            documentation = "1 while reads go to the replica, 0 while it is left alone."
            yield GaugeMetricFamily("mesh_database_replica_asked", documentation, value=float(asked))

    def _again(self) -> Metric:
        documentation = "What was tried again: a transaction in the way of others, a lost connection, a replica's read."
        again = CounterMetricFamily("mesh_database_tried_again", documentation, labels=("reason",))
        for reason, count in self._database.again.items():
            again.add_metric((reason,), count)
        return again
