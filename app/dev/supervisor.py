"""Everything on this machine, from one process: a Redis if none is given, and each replica a process of its own.

    its place ─► public port ─► Redis ─► replicas, all at once ─► ready, takes orders ─► … ─► stop

The public port is bound here, once, and handed to the gateways: while one of them is replaced, or starts again after
a crash, connections wait in its queue. The system stops from the edge inwards, so that no request is lost: the
gateway drains first, then the services, then Redis.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_urlsafe
from typing import Literal

from app.dev import boot, control, credentials, ports, premises, redis, roster, secrets, state
from app.dev.control import Order
from app.dev.events import Event, Report
from app.dev.fleet import Fleet, Surroundings
from app.dev.keeper import Keeper
from app.dev.nursery import Nursery
from app.dev.plan import Replica
from app.dev.rollout import Roller
from app.dev.secrets import Secrets
from app.dev.state import State
from app.dev.stop import Stop, longest_seconds
from app.errors import Misconfigured, PlatformError
from app.service import discover
from app.settings import Settings

WATCH_REDIS_SECONDS = 0.5


def run(settings: Settings, replicas: tuple[Replica, ...], report: Report) -> None:
    """Start everything, report when it is ready, and keep it running until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: its port is the public edge's; its data directory is ours alone meanwhile.

    Raises:
        Conflict: one runs on that data directory.
        Unavailable: the port is taken, or there is no Redis.
        BootFailed: a process did not become ready; everything is stopped again.
        Misconfigured: the demo's secrets are open to others, or make no sense.
    """
    with premises.occupied(settings.data_dir.resolve(), patience_seconds=longest_seconds(settings)):
        asyncio.run(_supervise(settings, replicas, report))


async def _supervise(settings: Settings, replicas: tuple[Replica, ...], report: Report) -> None:
    stop, place = Stop(), control.place(settings.data_dir.resolve())
    # Before anything starts, since everything is told of them.
    known = None if settings.env == "production" else secrets.ensure(settings.secrets_file, discover())
    with (
        stop.on_signals(),
        ports.listen(settings.host, settings.port) as listener,
        place as path,
        _some_redis(settings, report) as server,
    ):
        supervisor = Supervisor(
            settings, replicas, report, stop, listener=listener, server=server, path=path, known=known
        )
        await supervisor.run()


@contextmanager
def _some_redis(settings: Settings, report: Report) -> Iterator[redis.Server | None]:
    """The embedded one; None if REDIS_URL names another."""
    if "redis_url" in settings.model_fields_set:
        # Asked once, so that a wrong address is said at once rather than when the time to become ready is over.
        roster.read(settings.redis_url.get_secret_value(), settings.registry)
        report(Event(kind="step", text="Redis answers at the address given by REDIS_URL"))
        yield None
        return
    with redis.embedded(settings.data_dir.resolve() / "redis") as server:
        report(Event(kind="step", text=f"{server.binary.name} runs (pid {server.pid})"))
        yield server


class Supervisor:
    """One run of everything; see `run`. Made and used on one event loop.

    Args:
        listener: the public socket.
        server: the embedded Redis, unless another one is used.
        path: of the socket at which it takes orders.
        known: the demo's secrets; None in production, whose processes are told theirs by others.
    """

    def __init__(
        self,
        settings: Settings,
        replicas: tuple[Replica, ...],
        report: Report,
        stop: Stop,
        *,
        listener: socket.socket,
        server: redis.Server | None,
        path: Path,
        known: Secrets | None,
    ) -> None:
        self._settings, self._report, self._stop = settings, report, stop
        self._listener, self._server, self._path = listener, server, path
        self._data_dir = settings.data_dir.resolve()
        self._known = known
        self._redis_url = server.url if server else settings.redis_url.get_secret_value()
        given = settings.management_token
        self._token = given.get_secret_value() if given else token_urlsafe(24)
        self._phase: Literal["starting", "ready", "stopping"] = "starting"
        self._nursery = Nursery(
            log=self._data_dir / "logs" / "forker.log",
            pid_file=self._data_dir / "run" / "forker.pid",
            sockets=(listener.fileno(),),
        )
        self._fleet = Fleet(replicas, self._surroundings(), nursery=self._nursery, witness=self)
        self._roller = Roller(self._fleet, redis_url=self._redis_url, settings=settings.registry)

    async def run(self) -> None:
        """Raises: as the function `run`."""
        async with self._nursery:
            try:
                if await self._stop.lets_finish(self._boot()):
                    await self._serve()
            finally:
                await self._shut_down()

    async def _boot(self) -> None:
        keepers, ready = self._fleet.keepers, 0

        def count(keeper: Keeper) -> None:
            nonlocal ready
            ready += 1
            self._report(Event(kind="step", text=f"{keeper.replica.name} is ready ({ready}/{len(keepers)})"))

        for keeper in keepers:
            keeper.start()
        await boot.until_ready(keepers, redis_url=self._redis_url, settings=self._settings.registry, became_ready=count)

    # ------------------------------------------------------------------------------------------------ while it runs

    async def _serve(self) -> None:
        async with control.listen(self._path, self._carry_out):
            self._become("ready")
            self._report(Event(kind="ready", state=self._describe()))
            while not self._stop.told.is_set():
                self._revive_redis()
                with suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_REDIS_SECONDS):
                        await self._stop.told.wait()

    def _revive_redis(self) -> None:
        # In this thread, although it takes a moment: a leash ends with the thread that holds it.
        if self._server is not None and not self._server.is_alive:
            revived = self._server.start()
            self._report(Event(kind="note", text=f"Redis ended; {'started again' if revived else 'it does not start'}"))

    async def _carry_out(self, order: Order, report: Report, hung_up: asyncio.Event) -> None:
        what = f"Rollout of {', '.join(order.services)}"
        self._report(Event(kind="note", text=f"{what} begins"))
        try:
            replaced = await self._roller.roll(order.services, report, hung_up)
        except PlatformError as error:
            self._report(Event(kind="note", text=f"{what} failed: {error.detail}"))
            raise
        why = ", since nobody waits for it any more" if hung_up.is_set() else ""
        self._report(Event(kind="note", text=f"{what} has ended after {replaced} of its replicas{why}"))

    def changed(self, keeper: Keeper) -> None:
        self._save()

    def ended(self, keeper: Keeper, code: int, again_in_seconds: float) -> None:
        if keeper.stage == "joining" and keeper.crashed.is_set():
            # Whoever waits for it to become ready has heard, and says so with the end of its log.
            return
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        text = f"{keeper.replica.name} ended {how}; starting it again in {again_in_seconds:g} s (log: {keeper.log})"
        self._report(Event(kind="note", text=text))

    # ------------------------------------------------------------------------------------------------ on the way down

    async def _shut_down(self) -> None:
        self._become("stopping")
        self._report(Event(kind="step", text="Stopping: the gateway first, then the services"))
        hurry = asyncio.create_task(self._kill_all_when_hurried())
        # From here on a gateway that closes its listener leaves nobody waiting in a queue that nobody serves.
        self._nursery.let_go()
        self._listener.close()
        keepers = self._fleet.keepers
        await self._fleet.stop(*(keeper for keeper in keepers if keeper.replica.is_gateway))
        await self._fleet.stop(*(keeper for keeper in keepers if not keeper.replica.is_gateway))
        hurry.cancel()
        await asyncio.gather(hurry, return_exceptions=True)

    async def _kill_all_when_hurried(self) -> None:
        await self._stop.hurried.wait()
        for keeper in self._fleet.keepers:
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
            url=self._url,
            redis_url=self._redis_url,
            namespace=self._settings.registry.namespace,
            redis_pid=self._server.pid if self._server else None,
            management_token=self._token,
            control=self._path,
            processes=self._fleet.describe(),
        )

    @property
    def _url(self) -> str:
        return ports.address(self._settings.host, self._settings.port)

    def _credentials(self, service: str) -> Mapping[str, str]:
        if self._known is None:
            return {}
        # Read anew for each process: one may have been rotated. What has become unreadable is as it was.
        with suppress(Misconfigured):
            self._known = secrets.read(self._settings.secrets_file) or self._known
        return credentials.variables(service, issuer=self._url, known=self._known, given=os.environ)

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            data_dir=self._data_dir,
            redis_url=self._redis_url,
            management_token=self._token,
            credentials=self._credentials,
            listener=self._listener.fileno(),
            first_port=self._settings.port + 1,
            stop_seconds=longest_seconds(self._settings),
        )
