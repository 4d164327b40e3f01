"""Everything on this machine, from one process: a Redis if none is given, and each replica a process of its own.

    lock ─► clear what a killed one left ─► Redis ─► replicas, all at once ─► ready ─► … ─► stop

It stops from the edge inwards, so that no request is lost: the gateway drains first, then the services, then Redis.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from app.dev import lock, ports, readiness, redis, roster, state
from app.dev.events import Event, Report
from app.dev.keeper import Keeper
from app.dev.nursery import Nursery
from app.dev.plan import Replica
from app.dev.state import State
from app.errors import Conflict, PlatformError
from app.settings import Settings

START_SECONDS = 90.0
# A process drains for settings.drain_seconds; this much later it is killed.
KILL_AFTER_SECONDS = 5.0
WATCH_REDIS_SECONDS = 0.5
LOG_TAIL_LINES = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class BootFailed(PlatformError):
    """A process did not become ready; `tail` is the end of its log."""

    code, title = "boot_failed", "A process did not become ready"

    def __init__(self, detail: str, *, tail: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.tail = tail


def run(settings: Settings, replicas: tuple[Replica, ...], report: Report) -> None:
    """Start everything, report when it is ready, and keep it running until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: its port is the public edge's; its data directory is ours alone meanwhile.

    Raises:
        Conflict: one runs on that data directory.
        Unavailable: the port is taken, or there is no Redis.
        BootFailed: a process did not become ready; everything is stopped again.
    """
    data_dir = settings.data_dir.resolve()
    for folder in (data_dir, data_dir / "logs", data_dir / "run"):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock.exclusive(data_dir / state.LOCK_FILE):
            _clear(data_dir, patience_seconds=settings.drain_seconds)
            ports.require(settings.host, settings.port)
            try:
                asyncio.run(_supervise(settings, replicas, report))
            finally:
                _clear(data_dir, patience_seconds=0)
    except lock.Held:
        raise Conflict(already_running(data_dir)) from None


def already_running(data_dir: Path) -> str:
    known = state.running(data_dir)
    where = f" at {known.url} (pid {known.pid})" if known else ""
    return f"Already running{where} on {data_dir}; stop it with `mesh down`, or choose another --data-dir"


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> tuple[str, ...]:
    """The last `lines` of a log."""
    try:
        return tuple(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ()


def _clear(data_dir: Path, *, patience_seconds: float) -> None:
    """Remove what says that something runs; what a killed supervisor left is waited for, then ended."""
    state.remove(data_dir)
    files = [*(data_dir / "run").glob("*"), data_dir / "redis" / redis.PID_FILE]
    give_up = time.monotonic() + patience_seconds
    while pids := [pid for pid in map(lock.holder, files) if pid is not None]:
        # Its leash has told each of them to go; whoever has not gone after a whole drain hangs.
        if time.monotonic() > give_up:
            _kill(pids)
        time.sleep(0.05)
    for file in files:
        file.unlink(missing_ok=True)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _supervise(settings: Settings, replicas: tuple[Replica, ...], report: Report) -> None:
    await Supervisor(settings, replicas, report).run()


class Supervisor:
    """One run of everything; see `run`. Made and used on one event loop."""

    def __init__(self, settings: Settings, replicas: tuple[Replica, ...], report: Report) -> None:
        self._settings, self._report = settings, report
        self._data_dir = settings.data_dir.resolve()
        self._phase: Literal["starting", "ready", "stopping"] = "starting"
        self._redis: redis.Server | None = None
        self._redis_url = settings.redis_url.get_secret_value()
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._failed: asyncio.Future[Keeper] = asyncio.get_running_loop().create_future()
        self._ports = ports.free_from(settings.port + 1)
        self._nursery = Nursery(
            log=self._data_dir / "logs" / "forker.log", pid_file=self._data_dir / "run" / "forker.pid"
        )
        self._keepers = [self._keeper(replica) for replica in replicas]
        self._ready: set[Replica] = set()

    async def run(self) -> None:
        """Raises: as the function `run`."""
        with self._signals(), self._some_redis():
            async with self._nursery:
                await self._live()

    async def _live(self) -> None:
        try:
            if await self._unless_stopped(self._boot()):
                self._become("ready")
                self._report(Event(kind="ready", state=self._describe()))
                await self._serve()
        finally:
            await self._shut_down()

    # --------------------------------------------------------------------------------------------- on the way up

    @contextmanager
    def _some_redis(self) -> Iterator[None]:
        if "redis_url" in self._settings.model_fields_set:
            # Asked once, so that a wrong address is said at once rather than when the time to become ready is over.
            roster.read(self._redis_url, self._settings.registry)
            self._report(Event(kind="step", text="Redis answers at the address given by REDIS_URL"))
            yield
            return
        with redis.embedded(self._data_dir / "redis") as server:
            self._redis, self._redis_url = server, server.url
            self._report(Event(kind="step", text=f"{server.binary.name} runs (pid {server.pid})"))
            yield

    async def _boot(self) -> None:
        for keeper in self._keepers:
            keeper.start()
        waiting = asyncio.create_task(self._wait_until_ready())
        either: set[asyncio.Future[Any]] = {waiting, self._failed}
        try:
            await asyncio.wait(either, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise self._diagnosis()
            waiting.result()
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def _wait_until_ready(self) -> None:
        await readiness.wait(
            {keeper.replica: keeper for keeper in self._keepers},
            redis_url=self._redis_url,
            settings=self._settings.registry,
            became_ready=self._report_progress,
        )

    def _report_progress(self, replica: Replica) -> None:
        self._ready.add(replica)
        self._report(Event(kind="step", text=f"{replica.name} is ready ({len(self._ready)}/{len(self._keepers)})"))

    def _diagnosis(self) -> BootFailed:
        """What to say of the process that ended, or of the first that is not ready in time."""
        if self._failed.done():
            keeper = self._failed.result()
            return BootFailed(f"{keeper.replica.name} ended while starting; from {keeper.log}:", tail=tail(keeper.log))
        late = [keeper for keeper in self._keepers if keeper.replica not in self._ready]
        if not late:
            return BootFailed(f"Not all processes are in the registry after {START_SECONDS:g} s")
        names = ", ".join(keeper.replica.name for keeper in late)
        return BootFailed(f"Not ready after {START_SECONDS:g} s: {names}; from {late[0].log}:", tail=tail(late[0].log))

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work, or drop it when we are told to stop; whether it was done."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------ while it runs

    async def _serve(self) -> None:
        while not self._stop.is_set():
            self._revive_redis()
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_REDIS_SECONDS):
                    await self._stop.wait()

    def _revive_redis(self) -> None:
        # In this thread, although it takes a moment: a leash ends with the thread that holds it.
        if self._redis is not None and not self._redis.is_alive:
            revived = self._redis.start()
            self._report(Event(kind="note", text=f"Redis ended; {'started again' if revived else 'it does not start'}"))

    def started(self, keeper: Keeper) -> None:
        self._save()

    def ended(self, keeper: Keeper, code: int, again_in_seconds: float) -> None:
        taken = not keeper.replica.is_edge and not ports.is_free(ports.LOOPBACK, keeper.port)
        if self._phase == "starting" and not taken and not self._failed.done():
            self._failed.set_result(keeper)
            return
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        text = f"{keeper.replica.name} ended {how}; starting it again in {again_in_seconds:g} s (log: {keeper.log})"
        self._report(Event(kind="note", text=text))

    # ------------------------------------------------------------------------------------------------ on the way down

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for sign in SIGNALS:
            loop.add_signal_handler(sign, self._on_signal)
        try:
            yield
        finally:
            for sign in SIGNALS:
                loop.remove_signal_handler(sign)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _shut_down(self) -> None:
        self._become("stopping")
        self._report(Event(kind="step", text="Stopping: the gateway first, then the services"))
        hurry = asyncio.create_task(self._kill_all_when_hurried())
        edge = [keeper for keeper in self._keepers if keeper.replica.is_gateway]
        inner = [keeper for keeper in self._keepers if not keeper.replica.is_gateway]
        bound = self._settings.drain_seconds + KILL_AFTER_SECONDS
        for ring in (edge, inner):
            await asyncio.gather(*(keeper.stop(within_seconds=bound) for keeper in ring))
        hurry.cancel()
        await asyncio.gather(hurry, return_exceptions=True)

    async def _kill_all_when_hurried(self) -> None:
        await self._hurry.wait()
        for keeper in self._keepers:
            keeper.kill()

    # --------------------------------------------------------------------------------------------------- what we are

    def _become(self, phase: Literal["ready", "stopping"]) -> None:
        self._phase = phase
        self._save()

    def _save(self) -> None:
        state.write(self._data_dir, self._describe())

    def _describe(self) -> State:
        return State(
            phase=self._phase,
            pid=os.getpid(),
            url=ports.address(self._settings.host, self._settings.port),
            redis_url=self._redis_url,
            namespace=self._settings.registry.namespace,
            redis_pid=self._redis.pid if self._redis else None,
            processes=tuple(keeper.describe() for keeper in self._keepers),
        )

    def _keeper(self, replica: Replica) -> Keeper:
        log = self._data_dir / "logs" / f"{replica.name}.log"
        log.write_bytes(b"")
        return Keeper(
            replica,
            self._nursery,
            host=self._settings.host if replica.is_edge else ports.LOOPBACK,
            choose_port=self._choice_of_port(replica),
            environment=self._environment,
            log=log,
            pid_file=self._data_dir / "run" / f"{replica.name}.pid",
            witness=self,
        )

    def _choice_of_port(self, replica: Replica) -> Callable[[int | None], int]:
        if replica.is_edge:
            return lambda last: self._settings.port
        return lambda last: last if last is not None and ports.is_free(ports.LOOPBACK, last) else next(self._ports)

    def _environment(self, keeper: Keeper) -> Mapping[str, str]:
        return os.environ | {
            "MESH_SERVICE": keeper.replica.service,
            "MESH_HOST": keeper.host,
            "MESH_PORT": str(keeper.port),
            "MESH_ADVERTISE_URL": keeper.url,
            "MESH_DATA_DIR": str(self._data_dir),
            "REDIS_URL": self._redis_url,
        }
