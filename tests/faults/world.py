"""A system as `mesh up` starts it, with a service of the tests' in it, on a Redis that the test may break."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from app import settings as app_settings
from app.dev import roster
from app.dev.roster import Member
from app.dev.state import Process
from app.errors import Unavailable
from tests.dev import system
from tests.dev.system import Answer, System, until
from tests.faults import kinds, traffic
from tests.faults.books import Books
from tests.faults.traffic import Mix, Traffic

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).with_name("toy.py")
RUN_NUMBERS = 20_000
PLENTY = 10**9


class World(System):
    """One system in a project of its own.

    Args:
        folder: holds the project and the data.
        redis_url: where its Redis is.
        environment: settings that differ from those delivered.
        without: services that are left out.
    """

    def __init__(
        self, folder: Path, *, redis_url: str, environment: Mapping[str, str], without: Sequence[str] = ()
    ) -> None:
        super().__init__(folder / "data", _project(folder / "project", without), **environment, REDIS_URL=redis_url)
        self.redis_url = redis_url
        self._registry = app_settings.load().registry
        self._next_number = 0

    # ------------------------------------------------------------------------------------- its processes

    def stop(self) -> None:
        for process in self.state().processes if self.is_ready() else ():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
        super().stop()

    def replicas(self, *services: str) -> tuple[Process, ...]:
        return tuple(p for p in self.state().processes if not services or p.service in services)

    def replica(self, service: str, number: int = 1) -> Process:
        """The one that serves; in a rollout there may be another of the same number, which comes or goes."""
        return next(p for p in self.replicas(service) if p.number == number and p.stage == "serving")

    def signal(self, process: Process, sign: signal.Signals) -> None:
        os.kill(process.pid, sign)

    def wait_for_another(self, before: Process) -> Process:
        """The process that has taken the place of `before`, once it is ready."""

        def follower() -> Process | None:
            now = self.replica(before.service, before.number)
            return now if now.pid != before.pid and is_ready(now) else None

        after: Process = until(f"another {before.service}-{before.number} is ready", follower)
        return after

    def settle(self) -> None:
        """Wait until every process is ready, and the registry knows them, and nobody else."""
        until("all are ready", lambda: all(is_ready(process) for process in self.replicas()))
        until("the registry is whole", self.is_whole)
        until("the gateway knows them", lambda: self.known_to(self.replica("gateway")) >= len(self.replicas()))

    @contextmanager
    def joined_by(self, service: str, *, port: int, url: str) -> Iterator[None]:
        """One more replica for the length of the block, started by ``mesh run``: it listens on `port`, and says `url`."""
        # As in production: who is told which Redis is told whom to believe.
        told = {"MESH_ADVERTISE_URL": url, "MESH_DATA_DIR": str(self.data_dir), "MESH_AUTH__ISSUER": self.url}
        with (self.data_dir.parent / f"{service}-joined.log").open("w") as log:
            process = subprocess.Popen(
                system.command("run", service, "--port", str(port)),
                cwd=self.project,
                env=system.user_environment(**self.settings, **told),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        with process:
            try:
                until("it is registered", lambda: process.pid in {each.instance.pid for each in self.registered()})
                yield
            finally:
                process.terminate()

    # ------------------------------------------------------------------------------------- what it says

    def registered(self) -> tuple[Member, ...]:
        """Who is in the registry; nobody, if Redis is away."""
        try:
            return roster.read(self.redis_url, self._registry)
        except Unavailable:
            return ()

    def has_everybody(self) -> bool:
        """Whether the registry has every process, as ready."""
        ready = {member.instance.pid for member in self.registered() if member.instance.takes_requests}
        return {process.pid for process in self.replicas()} <= ready

    def is_whole(self) -> bool:
        """Whether it has nobody besides."""
        return self.has_everybody() and len(self.registered()) == len(self.replicas())

    def known_to(self, process: Process) -> int:
        """How many instances a process has in its own list of peers."""
        return int(metric(process, "mesh_directory_instances"))

    def insight(self, process: Process) -> dict[str, Any]:
        """What a process says of itself to those who know the secret."""
        token = self.state().management_token
        request = urllib.request.Request(f"{process.url}/_mesh", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def log_of(self, process: Process) -> str:
        return process.log.read_text(errors="replace")

    # ------------------------------------------------------------------------------------- what is asked of it

    @contextmanager
    def under(self, mix: Mix) -> Iterator[Traffic]:
        """Load through the gateway for the length of the block, which begins when the first request has ended."""
        first, self._next_number = self._next_number, self._next_number + RUN_NUMBERS
        assert self._next_number <= kinds.ORDERS, "another run would place orders that were placed before"
        with traffic.against(self.url, mix, first=first, token=self.token()) as load:
            until("the load has begun", lambda: load.count)
            yield load

    def stock_up(self) -> None:
        """More of every article than any test orders."""
        for sku in kinds.SKUS:
            answer = self.ask(f"/inventory/{sku}", method="PATCH", json_body={"available": PLENTY})
            assert answer.status == 200, answer

    @property
    def books(self) -> Books:
        return Books(self.data_dir)

    def tell(self, process: Process, **mood: float) -> None:
        """Tell a toy how to behave from now on; what is not named is as it is at the start."""
        answer = system.ask(f"{process.url}/toy/mood", method="PUT", json_body=mood)
        assert answer.status == 200, answer

    def tell_all(self, **mood: float) -> None:
        for process in self.replicas("toy"):
            self.tell(process, **mood)

    def seen(self, process: Process, view: str) -> int:
        """How many requests for `view` have reached this toy."""
        answer: Answer = system.ask(f"{process.url}/toy/seen")
        return int(answer.body["seen"].get(view, 0))

    def piece_seconds(self) -> float:
        """How long a piece of the toys' work has really taken, on average."""
        told = [system.ask(f"{process.url}/toy/seen").body for process in self.replicas("toy")]
        mean: float = sum(each["worked_seconds"] for each in told) / sum(each["pieces"] for each in told)
        return mean

    def seen_by_all(self, view: str) -> int:
        return sum(self.seen(process, view) for process in self.replicas("toy"))


def is_ready(process: Process) -> bool:
    try:
        return system.ask(f"{process.url}/readyz").status == 200
    except OSError:
        return False


def metric(process: Process, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry `labels`, as the process itself counts them."""
    with urllib.request.urlopen(f"{process.url}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def take_time(what: str, condition: Callable[[], object]) -> float:
    """Seconds until `condition` comes true."""
    began = time.monotonic()
    until(what, condition)
    return time.monotonic() - began


def _project(folder: Path, without: Sequence[str]) -> Path:
    """A copy of the project with the toy in it."""
    for name in ("app", "config"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in without:
        shutil.rmtree(folder / "app" / "services" / name)
    toy = folder / "app" / "services" / "toy"
    toy.mkdir()
    shutil.copy(TOY, toy / "__init__.py")
    return folder


@contextmanager
def running(
    folder: Path, *, redis_url: str, environment: Mapping[str, str], replicas: str, without: Sequence[str] = ()
) -> Iterator[World]:
    """A system for the length of the block.

    Args:
        replicas: as for ``mesh up --replicas``.
    """
    world = World(folder, redis_url=redis_url, environment=environment, without=without)
    try:
        world.up("--replicas", replicas)
        if "inventory" not in without:
            world.stock_up()
        yield world
    finally:
        world.stop()
