"""`mesh token` prints a token and nothing else, or says in one line why not."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev import ports, secrets
from tests.dev import issuer as issuers
from tests.dev.issuer import CLIENTS, PASSWORDS, Issuer
from tests.dev.system import mesh, typed


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """One that answers; its demo's secrets are in the data directory."""
    path = tmp_path / "secrets.json"
    made = secrets.ensure(path, ["users"])
    path.write_text(made.model_copy(update={"accounts": PASSWORDS, "clients": CLIENTS}).model_dump_json())
    with issuers.running() as issuer:
        monkeypatch.setenv("MESH_AUTH__ISSUER", issuer.url)
        monkeypatch.setenv("MESH_DATA_DIR", str(tmp_path))
        yield issuer


def test_without_options_it_is_the_token_of_user_7(issuer: Issuer) -> None:
    printed = typed("token")
    assert (printed.returncode, printed.stdout, printed.stderr) == (0, "token-for-everything\n", "")
    assert issuer.passwords == [PASSWORDS["user7"]]


def test_user_scope_and_client_are_chosen(issuer: Issuer) -> None:
    assert typed("token", "--user", "admin", "--scope", "users:read").stdout == "token-for-users:read\n"
    assert issuer.passwords == [PASSWORDS["admin"]]
    assert typed("token", "--client", "demo-client", "--scope", "users:read").stdout == "token-of-demo-client\n"
    assert issuer.token_requests[-1]["scope"] == "users:read"


def test_a_password_may_come_by_standard_input(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    printed = typed("token", "--password-stdin")
    assert (printed.returncode, printed.stdout) == (1, "")
    assert issuer.passwords == ["wrong"]


def test_the_secret_of_the_environment_wins(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_AUTH__CLIENT_SECRET", "wrong")
    refused = typed("token", "--client", "demo-client")
    assert (refused.returncode, refused.stderr) == (1, "mesh: The issuer gives no token: invalid_client\n")
    monkeypatch.setenv("MESH_AUTH__CLIENT_SECRET", CLIENTS["demo-client"])
    assert typed("token", "--client", "demo-client").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--user", "bob"), "The password of 'bob' is not known: the demo's are user7, admin"),
        (("--client", "bob"), "The secret of 'bob' is not known: the demo's are demo-client"),
        (("--user", "admin", "--client", "demo-client"), "Either --user or --client"),
        (("--client", "demo-client", "--password-stdin"), "A client has no password"),
        (("--scope", "users:fly"), "invalid_scope"),
        (("--client", "demo-client", "--scope", "users:fly"), "invalid_scope"),
        (("--client", "demo-client", "--audience", "nobody"), "invalid_target"),
        (("--scope", "users:read  orders:write"), "--scope: words between spaces"),
        (("--scope", ""), "--scope: words between spaces"),
        (("--audience", "a b"), "--audience: one word"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_2(issuer: Issuer, arguments: tuple[str, ...], said: str) -> None:
    refused = typed("token", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_where_nothing_runs_it_says_how_to_start_it(tmp_path: Path) -> None:
    refused = mesh("token", "--data-dir", str(tmp_path))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"mesh: Nothing runs on {tmp_path}; start it with `mesh up`, or set MESH_AUTH__ISSUER\n"


def test_an_issuer_that_does_not_answer_is_one_line(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_AUTH__ISSUER", f"http://127.0.0.1:{ports.any_free()}")
    refused = typed("token")
    assert refused.returncode == 1
    assert "does not answer" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_secrets_that_others_can_read_are_not_used(issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "secrets.json").chmod(0o644)
    refused = typed("token")
    assert refused.returncode == 1
    assert "open to others than its owner" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert issuer.pages == []
