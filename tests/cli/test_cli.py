"""The command line: what it takes, how it ends, and that nothing foreseen shows a traceback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from app.cli.main import COMMANDS, main
from tests.dev.system import ask, command, mesh, typed, until, user_environment


def end(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process: its code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = end(capsys, "--help")
    assert code == 0
    assert all(f" {name} " in out for name in COMMANDS)


def test_an_unknown_command_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = end(capsys, "fly")
    assert code == 2
    assert "fly" in err


def test_an_unknown_service_to_replicate_is_one_line_and_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = end(capsys, "up", "--replicas", "payments=2", "--data-dir", str(tmp_path))
    assert code == 2
    assert err == "mesh: --replicas: no service 'payments'; there are: identity, inventory, orders, users, gateway\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps",),
        ("call", "users", "GET", "/users/7"),
        ("inspect", "users-1"),
        ("drain", "users-1"),
        ("weight", "users"),
        ("events", "lag"),
        ("events", "tail"),
        ("events", "dead", "list"),
    ],
)
def test_without_a_running_system_it_says_how_to_start_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, _, err = end(capsys, *arguments, "--data-dir", str(tmp_path))
    assert code == 1
    assert err == f"mesh: Nothing runs on {tmp_path}; start it with `mesh up`, or set REDIS_URL\n"


def test_only_what_mesh_up_runs_can_be_rolled_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = end(capsys, "rollout", "users", "--data-dir", str(tmp_path))
    assert (code, err) == (1, f"mesh: Nothing runs on {tmp_path}; start it with `mesh up`\n")


def test_to_stop_what_does_not_run_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert end(capsys, "down", "--data-dir", str(tmp_path)) == (0, f"Nothing runs on {tmp_path}.\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("users", "GET", "users/7"), "starts with a slash"), (("users", "POST", "/users", "--json", "{"), "--json")],
)
def test_a_call_that_makes_no_sense_is_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = end(capsys, "call", *arguments)
    assert code == 2
    assert said in err


def test_a_service_that_does_not_exist_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = end(capsys, "run", "payments")
    assert code == 1
    assert err.startswith("mesh: No service 'payments'; there are: ")


def test_services_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = end(capsys, "services")
    rows = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert code == 0
    assert "/users" in rows["users"]
    assert "yes       users  " in rows["orders"]


def test_a_wrong_setting_is_one_line_without_its_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_DRAIN_SECONDS", "s3cret")
    code, _, err = end(capsys, "ps")
    assert code == 1
    assert "drain_seconds" in err
    assert "s3cret" not in err


def test_tables_are_brought_up_to_date_once(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    assert mesh("db", "status", *where).returncode == 1
    upgraded = typed("db", "upgrade", "--all", *where).stdout
    head = re.search(r"^users: now at (\d{4}), was at nothing$", upgraded, re.MULTILINE)
    assert head is not None, upgraded
    assert typed("db", "upgrade", "users", *where).stdout == f"users: up to date at {head[1]}\n"
    assert typed("db", "status", *where).returncode == 0


def test_tables_go_back_when_an_operator_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data-dir", str(tmp_path))
    end(capsys, "db", "upgrade", "users", *where)
    code, out, _ = end(capsys, "db", "downgrade", "users", "--to", "base", *where)
    assert code == 0
    assert out.startswith("users: now at nothing, was at 0")
    assert end(capsys, "db", "downgrade", "users", *where)[:2] == (0, "users: stays at nothing\n")
    code, _, err = end(capsys, "db", "downgrade", "--all", "--to", "0001", *where)
    assert code == 2
    assert "--to base" in err
    code, _, err = end(capsys, "db", "downgrade", "users", "--to", "0001", *where)
    assert code == 2
    assert "no revision before" in err


def test_one_service_runs_in_the_foreground_as_in_production(
    tmp_path: Path, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"REDIS_URL": redis_url, "MESH_REGISTRY__NAMESPACE": namespace, "MESH_DATA_DIR": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert typed("db", "upgrade", "users").returncode == 0
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command("run", "users"), env=user_environment(**environment), stderr=log)
    try:
        listed = until("it is registered", lambda: json.loads(typed("ps", "--json").stdout or "[]"))
        assert [(member["service"], member["pid"]) for member in listed] == [("users", process.pid)]
        assert ask(f"{listed[0]['url']}/readyz").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert typed("ps").stdout == "Nobody is registered.\n"
    finally:
        process.kill()
        process.wait()
