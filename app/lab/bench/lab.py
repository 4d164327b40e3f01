"""What all benchmarks use: interleaved rounds over fresh processes, one measurement under load, a Redis namespace."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from app import redis_client
from app.errors import BadInput, Unavailable
from app.lab.bench import child, proc
from app.lab.bench.child import Child
from app.lab.bench.footing import LOOPBACK, REDIS_SECONDS
from app.lab.bench.model import Metric, Sample, Subject
from app.lab.bench.proc import Cores
from app.lab.bench.subjects import views
from app.lab.load import ClosedLoop, Target

CPU = Metric("cpu_us", "CPU µs/request", 1)
RATE = Metric("per_second", "requests/s", lower_is_better=False)
P50 = Metric("p50_ms", "p50 ms", 2)
P99 = Metric("p99_ms", "p99 ms", 2)
ERRORS = Metric("errors", "errors")
OTHERS = Metric("others_percent", "core taken by others %", 0)
UNDER_LOAD = (CPU, RATE, P50, P99, ERRORS, OTHERS)

Figures = Mapping[str, float]
Measure = Callable[[Child], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how much.

    Args:
        rounds: of each subject, interleaved: A B C A B C …
        seconds: the measured window.
        calls: of each kind in `mesh_call`, in each round.
        only: the keys of the subjects to measure; all if there are none.
    """

    rounds: int = 3
    seconds: float = 3.0
    warm_up_seconds: float = 1.0
    connections: int = 32
    bursts: tuple[int, ...] = (400, 1000)
    calls: int = 6000
    only: tuple[str, ...] = ()

    def chosen(self, subjects: Sequence[Subject]) -> tuple[Subject, ...]:
        """Those of `subjects` that are wanted. Raises: BadInput: none of them is."""
        chosen = tuple(subject for subject in subjects if not self.only or subject.key in self.only)
        if not chosen:
            raise BadInput(f"Nothing to measure; there are: {', '.join(subject.key for subject in subjects)}")
        return chosen


QUICK = Options(rounds=1, seconds=0.25, warm_up_seconds=0.1, connections=16, bursts=(100,), calls=500)


@dataclass(frozen=True, slots=True)
class Lab:
    """One run of the bench.

    Args:
        tell: takes a line for whoever waits.
        namespace: of this run in the registry.
    """

    options: Options
    cores: Cores
    redis_url: str
    data_dir: str
    tell: Callable[[str], None]
    namespace: str = field(default_factory=lambda: f"lab-{secrets.token_hex(6)}")

    @property
    def environment(self) -> dict[str, str]:
        """What a child is told: this run's corner of Redis, and data that is thrown away."""
        return {
            "REDIS_URL": self.redis_url,
            "MESH_REGISTRY__NAMESPACE": self.namespace,
            "MESH_DATA_DIR": self.data_dir,
            "MESH_ENV": "test",
        }

    async def rounds(
        self, name: str, subjects: Sequence[Subject], measure: Measure, *, ready: str, extra: Mapping[str, str] = {}
    ) -> list[Sample]:
        """Measure each subject in each round, on a fresh process that has the server's core for itself.

        Args:
            ready: the path that a subject must answer with 200 first.
            extra: more environment for the child.
        """
        samples: list[Sample] = []
        for number in range(1, self.options.rounds + 1):
            for subject in subjects:
                async with child.serving(
                    subject.app,
                    subject.server,
                    core=self.cores.server,
                    environment={**self.environment, **extra},
                    ready=ready,
                ) as process:
                    samples.append(Sample(subject.key, number, await measure(process)))
                self.report(name, number, subject, samples[-1].figures)
        return samples

    async def under_load(
        self,
        process: Child,
        path: str,
        *,
        method: str = "GET",
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> Figures:
        """Requests for `path` in a closed loop: what they cost the process, and how fast they were answered."""
        options = self.options
        target = Target(LOOPBACK, process.port, path, method=method, headers=headers, body=body)
        async with ClosedLoop(target, connections=options.connections) as load:
            await asyncio.sleep(options.warm_up_seconds)
            load.restart_counting()
            cpu, busy = proc.cpu_seconds(process.pid), proc.busy_seconds(self.cores.server)
            await asyncio.sleep(options.seconds)
            tally = load.tally()
            cpu = proc.cpu_seconds(process.pid) - cpu
            busy = proc.busy_seconds(self.cores.server) - busy
        if not tally.answered:
            raise Unavailable(f"A server of the bench answered nothing on {path} ({dict(tally.errors)})")
        return {
            "cpu_us": cpu / tally.answered * 1e6,
            "per_second": tally.per_second,
            "p50_ms": tally.latency_ms(50),
            "p99_ms": tally.latency_ms(99),
            "errors": tally.failed,
            "others_percent": max(0.0, busy - cpu) / tally.seconds * 100,
        }

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Child]:
        """Whom the callers call, on the core of the load generator, registered in this run's namespace.

        Raises:
            Unavailable: there is no Redis, or the peer does not start.
        """
        await self.require_redis()
        async with child.serving(
            "peer", "alone", core=self.cores.load, environment=self.environment, ready=views.USER_PATH
        ) as process:
            yield process

    async def require_redis(self) -> None:
        """Raises: Unavailable: there is none."""
        async with redis_client.open_async(self.redis_url, timeout_seconds=REDIS_SECONDS) as redis:
            try:
                await redis.ping()
            except (RedisError, OSError) as error:
                message = "This benchmark needs a Redis: ./scripts/bench finds or starts one, REDIS_URL names one"
                raise Unavailable(message) from error

    async def clean_up(self) -> None:
        """Take this run's keys out of Redis, if there is one."""
        async with redis_client.open_async(self.redis_url, timeout_seconds=REDIS_SECONDS) as redis:
            try:
                async for key in redis.scan_iter(f"*{self.namespace}*", count=1000):
                    await redis.delete(key)
            except (RedisError, OSError):
                # They expire by themselves; without a Redis there are none.
                return

    def report(self, name: str, number: int, subject: Subject, figures: Figures) -> None:
        """Say what was just measured."""
        said = ", ".join(f"{key} {figure:,.1f}" for key, figure in figures.items())
        self.tell(f"{name} {number}/{self.options.rounds}  {subject.label}: {said}")
