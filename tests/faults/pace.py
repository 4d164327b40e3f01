"""How long things take: outages of seconds for every day, of minutes with ``--long``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pace:
    """One form of the suite.

    Args:
        settings: environment of the system; what is not there is as delivered.
        lease_seconds, heartbeat_seconds, poll_seconds: what they come to.
        warm_seconds: load before anything breaks, which is also what a fault is compared with.
        after_seconds: load after all is well again.
        chaos_orders: how many are placed while a process is killed every `chaos_seconds`.
    """

    per_second: float
    warm_seconds: float
    after_seconds: float
    standstill_seconds: float
    compared_seconds: float
    redis_away_seconds: float
    redis_hung_seconds: float
    cancelling_seconds: float
    storm_seconds: float
    chaos_orders: int
    chaos_seconds: float
    lease_seconds: float
    heartbeat_seconds: float
    poll_seconds: float
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_again_seconds(self) -> float:
        """One heartbeat and one poll, each at its latest, and what a busy machine may add."""
        return 1.1 * self.heartbeat_seconds + 1.2 * self.poll_seconds + 2.0


SHORT = Pace(
    per_second=80.0,
    warm_seconds=1.0,
    after_seconds=1.0,
    standstill_seconds=6.0,
    compared_seconds=4.0,
    # Longer than a lease.
    redis_away_seconds=4.0,
    redis_hung_seconds=3.0,
    cancelling_seconds=6.0,
    storm_seconds=5.0,
    chaos_orders=150,
    chaos_seconds=1.0,
    lease_seconds=3.0,
    heartbeat_seconds=1.0,
    poll_seconds=1.0,
    settings={
        "MESH_REGISTRY__LEASE_SECONDS": "3",
        "MESH_REGISTRY__HEARTBEAT_SECONDS": "1",
        "MESH_REGISTRY__POLL_SECONDS": "1",
        # What has just started is spared for a while, which is not what most scenarios are about.
        "MESH_BALANCING__SLOW_START_SECONDS": "1",
    },
)

LONG = Pace(
    per_second=80.0,
    # Longer than a slow start.
    warm_seconds=12.0,
    after_seconds=10.0,
    standstill_seconds=20.0,
    compared_seconds=20.0,
    redis_away_seconds=60.0,
    redis_hung_seconds=10.0,
    cancelling_seconds=60.0,
    storm_seconds=30.0,
    chaos_orders=10_000,
    chaos_seconds=1.0,
    lease_seconds=15.0,
    heartbeat_seconds=5.0,
    poll_seconds=5.0,
    # Nobody confirms an order while Redis is away, and here that is as long as an order may take.
    settings={"MESH_ORDERS__TIMEOUT_SECONDS": "300"},
)
