"""A whole system on this machine, as a user has it: started by the `mesh` command, spoken to over HTTP."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import settings as app_settings
from app.cli.main import main
from app.dev import control, lock, ports, roster, state
from app.dev.state import Process, State
from app.mesh.registry.record import Instance
from tests.tokens import bearer

PATIENCE_SECONDS = 60.0
# Half of a token's life.
TOKEN_SECONDS = 300.0


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Wait for `condition` to be true, and return what it says."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < give_up, f"It did not happen: {what}"
        time.sleep(0.02)
    return answer


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie that nobody reaps has."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def ask(
    url: str, *, method: str = "GET", json_body: Any = None, token: str | None = None, prefer: str | None = None
) -> Answer:
    """One HTTP request; an error status is an answer too."""
    data = None if json_body is None else json.dumps(json_body).encode()
    headers = {"Content-Type": "application/json"} | ({} if token is None else bearer(token))
    headers |= {} if prefer is None else {"Prefer": prefer}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return Answer(reply.status, json.loads(reply.read() or b"null"), dict(reply.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.loads(error.read() or b"null"), dict(error.headers))


def mesh(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `mesh` to its end; the environment is that of a user: none of the tests' own settings."""
    return mesh_of(None, *arguments, **environment)


def mesh_of(project: Path | None, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The `mesh` of another project."""
    return subprocess.run(
        command(*arguments),
        cwd=project,
        env=user_environment(**environment),
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_SECONDS,
    )


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, which saves the second that a start takes."""
    # Like a process's own, they take bytes as well.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(arguments, code or 0, *said)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


def user_environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "REDIS_URL"))}
    return inherited | more


def first_port() -> int:
    """From where this process may look for free ports, as others do that run tests at the same time from elsewhere.

    Below the kernel's own range, as a user would choose one: see app.dev.ports.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 18_000 + worker % 4 * 3_500 + os.getpid() % 300 * 10


class System:
    """One data directory, and what runs on it.

    Args:
        project: the folder whose `app` is run; this one's own if not given.
        settings: environment variables of its user's.
    """

    def __init__(self, data_dir: Path, project: Path | None = None, **settings: str) -> None:
        self.data_dir, self.project = data_dir, project
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self._token, self._token_until = "", float("-inf")
        self.port = next(ports.free_from(first_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        self.foreground: subprocess.Popen[str] | None = None

    def up(self, *arguments: str) -> None:
        """Start it in the foreground and wait until it says that it is ready."""
        log = (self.data_dir.parent / f"{self.data_dir.name}.out").open("w+")
        with log:
            self.foreground = subprocess.Popen(
                command("up", *self._where(), *arguments),
                cwd=self.project,
                env=user_environment(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        until("it is ready", lambda: self.foreground_ended() or self.is_ready())
        assert self.is_ready(), self.said()

    def up_detached(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return mesh_of(self.project, "up", "--detach", *self._where(), *arguments, **self.settings)

    def down(self) -> subprocess.CompletedProcess[str]:
        return mesh_of(self.project, "down", "--data-dir", str(self.data_dir))

    def mesh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return mesh_of(self.project, *arguments, MESH_DATA_DIR=str(self.data_dir), **self.settings)

    def typed(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same in this process."""
        return typed(*arguments, "--data-dir", str(self.data_dir))

    def members(self, service: str) -> list[Instance]:
        """Who is in the registry, by id."""
        known = self.state()
        settings = app_settings.load().registry.model_copy(update={"namespace": known.namespace})
        found = [member.instance for member in roster.read(known.redis_url, settings)]
        return [instance for instance in found if instance.service == service]

    def mesh_in_background(self, *arguments: str, out: Path) -> subprocess.Popen[str]:
        """The same, while the test goes on; what it prints goes to `out`."""
        with out.open("w") as sink:
            return subprocess.Popen(
                command(*arguments),
                cwd=self.project,
                env=user_environment(MESH_DATA_DIR=str(self.data_dir), **self.settings),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def ask(self, path: str, *, method: str = "GET", json_body: Any = None, prefer: str | None = None) -> Answer:
        """Ask as an administrator."""
        return ask(self.url + path, method=method, json_body=json_body, token=self.token(), prefer=prefer)

    def token(self) -> str:
        """What the demo's client gets: it may do what an administrator may."""
        if time.monotonic() >= self._token_until:
            secret = json.loads((self.data_dir / "secrets.json").read_text())["clients"]["demo-client"]
            proof = base64.b64encode(f"demo-client:{secret}".encode()).decode()
            request = urllib.request.Request(
                f"{self.url}/oauth/token",
                data=b"grant_type=client_credentials",
                headers={"Authorization": f"Basic {proof}"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                self._token = json.load(reply)["access_token"]
            self._token_until = time.monotonic() + TOKEN_SECONDS
        return self._token

    def answers(self, path: str) -> bool:
        try:
            return self.ask(path).status == 200
        except OSError:
            return False

    def state(self) -> State:
        known = state.running(self.data_dir)
        assert known is not None, self.said()
        return known

    def is_ready(self) -> bool:
        known = state.running(self.data_dir)
        return known is not None and known.phase == "ready"

    def said(self) -> str:
        """What the foreground process has printed so far."""
        out = self.data_dir.parent / f"{self.data_dir.name}.out"
        return out.read_text() if out.exists() else ""

    def foreground_ended(self) -> bool:
        return self.foreground is not None and self.foreground.poll() is not None

    def pid_of(self, service: str, number: int = 1) -> int:
        return next(p.pid for p in self.state().processes if (p.service, p.number) == (service, number))

    def pids_of(self, service: str) -> list[int]:
        """Those of its replicas, in their order; while one is replaced, of two processes of one number."""
        return [p.pid for p in self.state().processes if p.service == service]

    def pids(self) -> list[int]:
        """Every process of it: supervisor, forker, Redis, replicas."""
        known = self.state()
        forker = lock.holder(self.data_dir / "run" / "forker.pid")
        found = [known.pid, known.redis_pid, forker, *(process.pid for process in known.processes)]
        return [pid for pid in found if pid]

    def leftovers(self) -> list[str]:
        """Files that say that something runs."""
        files = (state.STATE_FILE, state.LOCK_FILE, control.SOCKET_FILE, "redis/redis.pid")
        names = [*(self.data_dir / file for file in files), *self.data_dir.glob("run/*")]
        return [path.name for path in names if path.exists()]

    def stand_still(self, process: Process) -> None:
        """It answers nobody until it is to go on."""
        os.kill(process.pid, signal.SIGSTOP)

    def go_on(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Whatever a test has left is ended."""
        if state.running(self.data_dir) is not None:
            self.down()
        if self.foreground is not None:
            self.foreground.send_signal(signal.SIGINT)
            self.foreground.wait(PATIENCE_SECONDS)

    def _where(self) -> tuple[str, ...]:
        return "--port", str(self.port), "--data-dir", str(self.data_dir)
