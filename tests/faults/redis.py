"""A Redis that may be broken: its own port and password, which outlive it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from app.dev import leash, ports
from app.dev import redis as embedded
from tests.dev.system import until


class Redis:
    """One server; keeps nothing on disk, so it comes back empty.

    Args:
        directory: for its log and its pid file; of this server alone.
    """

    def __init__(self, directory: Path, *, password: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.port, self.password = ports.any_free(), password or secrets.token_urlsafe(12)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same server, as it is reached through a proxy on `port`."""
        return f"redis://default:{self.password}@127.0.0.1:{port}/0"

    # Verbs.

    def start(self) -> None:
        # What following another one may have left.
        (self._directory / "dump.rdb").unlink(missing_ok=True)
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                leash.command([embedded.locate(), "-"], pid_file=self._directory / "redis.pid"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(self._configuration().encode())
        self._process.stdin.close()
        until("Redis answers", lambda: embedded.answers("127.0.0.1", self.port, password=self.password))

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stand_still(self) -> None:
        """Accept connections, and answer nothing."""
        self._signal(signal.SIGSTOP)

    def move_on(self) -> None:
        self._signal(signal.SIGCONT)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def sleep(self, seconds: float) -> None:
        """``DEBUG SLEEP``, from a thread: the one who asks has to wait, too."""

        def ask() -> None:
            with self.client(socket_timeout=seconds + 10) as client, suppress(redis.ConnectionError):
                client.execute_command("DEBUG", "SLEEP", seconds)  # type: ignore[no-untyped-call]  # redis-py's

        threading.Thread(target=ask, daemon=True).start()

    def follow(self, other: Redis) -> None:
        """Become a replica of `other`, and wait until it is up to date."""
        with self.client() as client:
            client.config_set("masterauth", other.password)
            client.replicaof("127.0.0.1", str(other.port))
            until("the replica is in step", lambda: client.info("replication")["master_link_status"] == "up")

    def stop_following(self) -> None:
        """Become a primary, with what it has."""
        with self.client() as client:
            client.replicaof("NO", "ONE")

    @contextmanager
    def client(self, **options: Any) -> Iterator[redis.Redis]:
        with closing(redis.Redis.from_url(self.url, **options)) as client:
            yield client

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self.is_alive():
            self._signal(signal.SIGCONT)
            self.kill()

    def _signal(self, sign: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, sign)

    def _configuration(self) -> str:
        lines = ["bind 127.0.0.1", f"port {self.port}", f"requirepass {self.password}", f"dir {self._directory}"]
        lines += ['save ""', "appendonly no"]
        if embedded._version(str(embedded.locate())) >= (7, 0):
            lines.append("enable-debug-command local")
        return "\n".join([*lines, ""])


@contextmanager
def running(directory: Path, *, password: str | None = None) -> Iterator[Redis]:
    server = Redis(directory, password=password)
    server.start()
    try:
        yield server
    finally:
        server.stop()
