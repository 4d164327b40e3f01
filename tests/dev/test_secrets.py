"""The demo's secrets: made once, by one, for their owner alone."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.dev import secrets
from app.errors import Misconfigured

SERVICES = ("users", "orders", "gateway")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "secrets.json"


def test_each_account_and_client_has_one_of_its_own(path: Path) -> None:
    made = secrets.ensure(path, SERVICES)
    assert set(made.accounts) == {"admin", "user7", "user8"}
    assert set(made.clients) == {*SERVICES, "demo-client"}
    every = [made.key_secret, *made.accounts.values(), *made.clients.values()]
    assert len(set(every)) == len(every)
    assert all(len(secret) >= 32 for secret in every)
    assert json.loads(path.read_text()) == made.model_dump()


def test_they_are_kept(path: Path) -> None:
    made = secrets.ensure(path, SERVICES)
    assert secrets.ensure(path, SERVICES) == made == secrets.read(path)


def test_a_service_that_was_added_later_gets_one_and_the_others_keep_theirs(path: Path) -> None:
    before = secrets.ensure(path, SERVICES)
    after = secrets.ensure(path, (*SERVICES, "payments"))
    assert after.clients.keys() - before.clients.keys() == {"payments"}
    assert {name: after.clients[name] for name in before.clients} == before.clients
    assert (after.key_secret, after.accounts) == (before.key_secret, before.accounts)
    # One that has gone for a while finds its own again.
    assert secrets.ensure(path, ("users",)) == after


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_but_its_owner_can_read_them(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        secrets.ensure(path, SERVICES)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["secrets.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_file_that_is_open_to_others_is_refused_and_not_mended_in_silence(path: Path, mode: int) -> None:
    secrets.ensure(path, SERVICES)
    path.chmod(mode)
    with pytest.raises(Misconfigured, match="open to others than its owner") as refused:
        secrets.ensure(path, SERVICES)
    assert "\n" not in refused.value.detail
    with pytest.raises(Misconfigured, match="open to others than its owner"):
        secrets.read(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"key_secret": "hunter2"}', '{"key_secret": "hunter2", "accounts": 1}', "\xff"]
)
def test_a_file_that_makes_no_sense_is_refused_without_a_word_of_it(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match="does not hold the demo's secrets") as refused:
        secrets.ensure(path, SERVICES)
    assert "hunter2" not in refused.value.detail
    assert refused.value.__cause__ is None
    assert path.read_bytes() == content.encode("latin-1")


def test_without_a_file_there_are_none(path: Path) -> None:
    assert secrets.read(path) is None
    assert secrets.replace_client(path, "users", "new") is False
    assert not path.parent.exists()


def test_what_a_killed_process_left_half_written_is_in_nobodys_way(path: Path) -> None:
    path.parent.mkdir()
    path.with_name(f".secrets.json.{os.getpid()}").write_text('{"key_secr')
    made = secrets.ensure(path, SERVICES)
    assert secrets.read(path) == made
    assert [file.name for file in path.parent.iterdir()] == ["secrets.json"]


def test_of_many_processes_at_once_one_makes_them_for_all(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from app.dev import secrets; sys.stdin.readline(); "
        "print(secrets.ensure(Path(sys.argv[1]), sys.argv[2:]).model_dump_json())"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), *SERVICES, f"own-{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    assert len({answer["key_secret"] for answer in said}) == 1
    assert len({answer["clients"]["users"] for answer in said}) == 1
    kept = secrets.read(path)
    assert kept is not None
    # What each has added is there: nobody has written over the others.
    assert {f"own-{number}" for number in range(4)} <= set(kept.clients)
    assert all(answer["clients"][f"own-{n}"] == kept.clients[f"own-{n}"] for n, answer in enumerate(said))


def test_one_clients_secret_can_be_replaced(path: Path) -> None:
    before = secrets.ensure(path, SERVICES)
    assert secrets.replace_client(path, "orders", "another") is True
    assert secrets.replace_client(path, "nobody", "another") is False
    after = secrets.ensure(path, SERVICES)
    assert after.clients == {**before.clients, "orders": "another"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_they_do_not_show(path: Path) -> None:
    made = secrets.ensure(path, SERVICES)
    assert not any(
        secret in repr(made) for secret in (made.key_secret, *made.accounts.values(), *made.clients.values())
    )
