"""All replicas of a system: made here, each with its port, its files and its environment, and replaced here.

      keeper ─────────────────── serving ── leaving ── stop
    successor        joining ──────────────── serving …

For a while there are two processes of one number, each with its own port and pid file.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.dev import ports
from app.dev.keeper import Keeper, Witness
from app.dev.nursery import Nursery
from app.dev.plan import Replica
from app.dev.state import Process


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every replica of a system is told.

    Args:
        credentials: the variables by which a process of a service, asked for by name, knows the issuer and proves itself.
        listener: the descriptor of the public socket, which the gateways inherit.
        first_port: the replicas' own ports are counted up from here.
        stop_seconds: how long one may take to end by itself before it is killed.
    """

    data_dir: Path
    redis_url: str
    management_token: str
    credentials: Callable[[str], Mapping[str, str]]
    listener: int
    first_port: int
    stop_seconds: float

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    @property
    def run(self) -> Path:
        return self.data_dir / "run"


class Fleet:
    """The keepers of a system, in the order of their replicas; made and used on one event loop."""

    def __init__(
        self, replicas: Sequence[Replica], surroundings: Surroundings, *, nursery: Nursery, witness: Witness
    ) -> None:
        self._around, self._nursery, self._witness = surroundings, nursery, witness
        self._ports = ports.free_from(surroundings.first_port)
        self._made: Counter[Replica] = Counter()
        self._keepers = [self._keeper(replica, self._fresh_log(replica)) for replica in replicas]

    def __repr__(self) -> str:
        stages = Counter(keeper.stage for keeper in self._keepers)
        return f"<Fleet {', '.join(f'{count} {stage}' for stage, count in stages.items())}>"

    @property
    def keepers(self) -> tuple[Keeper, ...]:
        """All of them, a successor behind the one whose place it is to take."""
        return tuple(self._keepers)

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services that have a replica here, in their order."""
        return tuple(dict.fromkeys(keeper.replica.service for keeper in self._keepers))

    def of(self, service: str) -> tuple[Keeper, ...]:
        return tuple(keeper for keeper in self._keepers if keeper.replica.service == service)

    def describe(self) -> tuple[Process, ...]:
        return tuple(keeper.describe() for keeper in self._keepers)

    # ------------------------------------------------------------------------------------------------- replacing one

    def start_successor(self, keeper: Keeper) -> Keeper:
        """A second process of the same replica, started beside the first."""
        log = self._around.logs / f"{keeper.replica.name}.next.log"
        log.write_bytes(b"")
        successor = self._keeper(keeper.replica, log)
        self._keepers.insert(self._keepers.index(keeper) + 1, successor)
        successor.start()
        return successor

    async def give_up(self, successor: Keeper) -> None:
        """It is not to take anybody's place; its log stays."""
        await self.stop(successor)
        self._keepers.remove(successor)
        self._witness.changed(successor)

    async def replace(self, keeper: Keeper, successor: Keeper) -> bool:
        """Stop `keeper`, and put `successor` in its place. Returns whether it went by itself."""
        keeper.stage = "leaving"
        gracefully = await self.stop(keeper)
        self._keepers.remove(keeper)
        successor.restarts += keeper.restarts
        # Whoever looks into the log of a replica finds that of the process that runs.
        log = self._around.logs / f"{keeper.replica.name}.log"
        with suppress(FileNotFoundError):
            log.replace(log.with_suffix(".old.log"))
            successor.log = successor.log.replace(log)
        self._witness.changed(successor)
        return gracefully

    async def stop(self, *keepers: Keeper) -> bool:
        """Stop these at once; by force what does not end. Returns whether all went by themselves."""
        stops = (keeper.stop(within_seconds=self._around.stop_seconds) for keeper in keepers)
        return all(await asyncio.gather(*stops))

    # -------------------------------------------------------------------------------------------------- making one

    def _fresh_log(self, replica: Replica) -> Path:
        for name in (f"{replica.name}.next.log", f"{replica.name}.old.log"):
            (self._around.logs / name).unlink(missing_ok=True)
        log = self._around.logs / f"{replica.name}.log"
        log.write_bytes(b"")
        return log

    def _keeper(self, replica: Replica, log: Path) -> Keeper:
        self._made[replica] += 1
        return Keeper(
            replica,
            self._nursery,
            choose_port=self._choose_port,
            environment=self._environment,
            log=log,
            pid_file=self._around.run / f"{replica.name}.{self._made[replica]}.pid",
            witness=self._witness,
        )

    def _choose_port(self, last: int | None) -> int:
        return last if last is not None and ports.is_free(ports.LOOPBACK, last) else next(self._ports)

    def _environment(self, keeper: Keeper) -> Mapping[str, str]:
        own = {
            "MESH_SERVICE": keeper.replica.service,
            "MESH_HOST": ports.LOOPBACK,
            "MESH_PORT": str(keeper.port),
            "MESH_ADVERTISE_URL": keeper.url,
            "MESH_DATA_DIR": str(self._around.data_dir),
            "MESH_MANAGEMENT_TOKEN": self._around.management_token,
            "REDIS_URL": self._around.redis_url,
        }
        if keeper.replica.is_gateway:
            own["MESH_LISTEN_FD"] = str(self._around.listener)
        ours = {**self._around.credentials(keeper.replica.service), **own}
        return {name: value for name, value in os.environ.items() if name != "MESH_LISTEN_FD"} | ours
