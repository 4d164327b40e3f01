"""The demo with its own identity: tokens that are printed, carried, ended; secrets that are nowhere to be seen."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev import secrets
from app.dev.secrets import Secrets
from tests.dev.system import System, ask, command, mesh, until, user_environment

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("demo") / "data")
    try:
        started = system.up_detached()
        assert started.returncode == 0, started.stderr
        (system.data_dir.parent / "data.out").write_text(started.stdout)
        yield system
    finally:
        system.stop()


def known(system: System) -> Secrets:
    found = secrets.read(system.data_dir / "secrets.json")
    assert found is not None
    return found


def token(system: System, *arguments: str) -> str:
    printed = system.typed("token", *arguments)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout.count("\n") == 1
    return printed.stdout.strip()


def an_order(system: System) -> dict[str, object]:
    page = ask(f"{system.url}/inventory").body
    sku = next(item["sku"] for item in page["items"] if item["available"] >= 2)
    return {"user_id": 7, "items": [{"sku": sku, "quantity": 1}]}


def test_a_token_of_user_7_opens_what_is_theirs(running: System) -> None:
    mine = token(running)
    assert ask(f"{running.url}/users/7").body == {"id": 7, "name": "User7"}
    assert ask(f"{running.url}/users/7", token=mine).body["email"] == "user7@example.com"
    assert ask(f"{running.url}/orders", method="POST", json_body=an_order(running), token=mine).status == 202
    assert ask(f"{running.url}/users", token=mine).status == 403


def test_a_token_allows_what_was_asked_for_and_no_more(running: System) -> None:
    reading = token(running, "--scope", "orders:read")
    assert ask(f"{running.url}/orders", token=reading).status == 200
    assert ask(f"{running.url}/orders", method="POST", json_body=an_order(running), token=reading).status == 403
    assert ask(f"{running.url}/users", token=token(running, "--client", "demo-client")).status == 200
    assert ask(f"{running.url}/users", token=token(running, "--user", "admin")).status == 200


def test_what_up_prints_can_be_pasted_into_a_shell(running: System) -> None:
    commands = [line.strip() for line in running.said().splitlines() if line.strip().startswith("curl")]
    assert len(commands) == 3
    # Not every machine has curl: the shell is to show what it would be told, a word a line.
    for pasted, headers in zip(commands, (0, 1, 3), strict=True):
        shown = subprocess.run(
            ["sh", "-c", f"curl() {{ printf '%s\\n' \"$@\"; }}\n{pasted}"],
            env=user_environment(), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        words = shown.stdout.splitlines()
        assert words.count("-H") == headers
        bearers = [word.removeprefix("Authorization: Bearer ") for word in words if "Bearer" in word]
        url = next(word for word in words if word.startswith(running.url))
        body = json.loads(words[-1]) if "-d" in words else None
        prefer = next((word.removeprefix("Prefer: ") for word in words if word.startswith("Prefer: ")), None)
        bearer = bearers[0] if bearers else None
        method = "POST" if "POST" in words else "GET"
        answer = ask(url, method=method, json_body=body, token=bearer, prefer=prefer)
        assert answer.status == (201 if body else 200)


def test_calls_are_made_in_somebodys_name(running: System) -> None:
    nobody = running.mesh("call", "orders", "GET", "/orders")
    assert nobody.returncode == 1
    assert nobody.stderr == (
        "HTTP 401\nmesh: it is to be known who calls: add --as user7, --as-client demo-client, or --token TOKEN\n"
    )
    for somebody in (("--as", "user7"), ("--as-client", "demo-client"), ("--token", token(running))):
        called = running.typed("call", "orders", "GET", "/orders", *somebody)
        assert (called.returncode, called.stderr) == (0, "")
        assert "items" in json.loads(called.stdout)
    stale = running.typed("call", "orders", "GET", "/orders", "--token", "a.b.c")
    assert stale.returncode == 1
    assert stale.stderr.splitlines()[-1] == "mesh: the token is not believed; `mesh token` prints another"


@pytest.mark.parametrize("arguments", [("--as", "user7", "--token", "x"), ("--token", "a b"), ("--as", "nobody")])
def test_a_name_to_call_in_that_makes_no_sense_is_2(running: System, arguments: tuple[str, ...]) -> None:
    refused = running.typed("call", "orders", "GET", "/orders", *arguments)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1


def test_who_is_disabled_is_out_at_once(running: System) -> None:
    made = running.typed("user", "add", "ada", "--generate", "--subject", "9").stdout
    logged_in = subprocess.run(
        ["sh", "-c", 'printf %s "$0" | "$@"', made, *command("token", "--user", "ada", "--password-stdin")],
        env=user_environment(MESH_DATA_DIR=str(running.data_dir)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    hers = logged_in.stdout.strip()
    assert ask(f"{running.url}/orders", token=hers).status == 200
    assert running.typed("user", "disable", "ada").stdout == "ada is disabled: none of their tokens counts.\n"
    until("everybody has heard", lambda: ask(f"{running.url}/orders", token=hers).status == 401)


def test_a_services_secret_is_rotated_without_losing_an_order(running: System) -> None:
    mine, before = token(running), known(running).clients["orders"]
    rotated = running.typed("client", "rotate", "orders", "--overlap", "600")
    assert rotated.returncode == 0
    assert known(running).clients["orders"] == rotated.stdout.strip() != before
    assert ask(f"{running.url}/orders", method="POST", json_body=an_order(running), token=mine).status == 202
    # Now the running process has none that counts; the next one is told the newest.
    assert running.typed("client", "rotate", "orders", "--overlap", "0").returncode == 0
    assert running.mesh("rollout", "orders").returncode == 0
    assert ask(f"{running.url}/orders", method="POST", json_body=an_order(running), token=mine).status == 202


def test_the_secrets_are_nowhere_but_in_their_file(running: System) -> None:
    all_of_it = known(running)
    every = [all_of_it.key_secret, *all_of_it.accounts.values(), *all_of_it.clients.values()]
    token(running)
    said = [path for path in running.data_dir.rglob("*") if path.is_file() and path.name != "secrets.json"]
    assert {"state.json", "users-1.log", "supervisor.log", "identity.sqlite3"} <= {path.name for path in said}
    for place in (*said, *(Path(f"/proc/{pid}/cmdline") for pid in running.pids())):
        content = place.read_bytes()
        assert not [secret for secret in every if secret.encode() in content], place
    assert stat.S_IMODE((running.data_dir / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(running.data_dir.stat().st_mode) == 0o700


def test_they_are_kept_over_a_restart_and_refused_once_others_can_read_them(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    made = secrets.ensure(data_dir / "secrets.json", ["users"])
    (data_dir / "secrets.json").chmod(0o640)
    refused = mesh("up", "--port", "0", "--data-dir", str(data_dir))
    assert refused.returncode == 1
    assert "open to others than its owner" in refused.stderr.splitlines()[-1]
    assert not any(secret in refused.stderr for secret in (made.key_secret, *made.clients.values()))
    assert not (data_dir / "state.json").exists()
