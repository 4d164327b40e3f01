"""`mesh user` and `mesh client`: on identity's database, as `mesh db` works on it."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import subprocess
import termios
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from app.data import Database
from app.dev import secrets
from app.services.identity import demo, passwords
from app.services.identity.account_store import AccountStore
from app.services.identity.client import Client
from app.services.identity.client_store import ClientStore
from tests.data.databases import SETTINGS
from tests.dev.system import PATIENCE_SECONDS, command, mesh, typed, user_environment

T = TypeVar("T")
PASSWORD = "correct horse"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose identity has its tables."""
    monkeypatch.setenv("MESH_DATA_DIR", str(tmp_path))
    assert typed("db", "upgrade", "identity").returncode == 0
    return tmp_path


def asked(data_dir: Path, work: Callable[[Database], object]) -> None:
    """Do `work`, which is asynchronous, on the database."""

    async def run() -> None:
        database = Database(url_of(data_dir), SETTINGS)
        try:
            await work(database)  # type: ignore[misc]  # a coroutine
        finally:
            await database.close()

    asyncio.run(run())


def url_of(data_dir: Path) -> str:
    return f"sqlite+aiosqlite:///{data_dir / 'identity.sqlite3'}"


def client_of(data_dir: Path, client_id: str) -> Client:
    found: list[Client | None] = []

    async def find(database: Database) -> None:
        found.append(await ClientStore(database).find(client_id))

    asked(data_dir, find)
    assert found[0] is not None
    return found[0]


def has_password(data_dir: Path, username: str, password: str) -> bool:
    found: list[str] = []

    async def find(database: Database) -> None:
        found.append((await AccountStore(database)._password_of(username)).password_hash)

    asked(data_dir, find)
    assert found[0].startswith("$argon2id$")
    return asyncio.run(passwords.verify(password, found[0]))


def from_stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


# ---------------------------------------------------------------------------------------------------------- users


def test_a_user_is_added_with_all_that_was_said(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_stdin(monkeypatch, f"{PASSWORD}\n")
    added = typed(
        "user", "add", "Ada", "--role", "admin", "--role", "clerk", "--email", "ada@example.com", "--subject", "42",
        "--name", "Ada Lovelace", "--password-stdin",
    )  # fmt: skip
    assert (added.returncode, added.stdout) == (0, "ada is added, with the subject 42.\n")
    heading, row = typed("user", "list").stdout.splitlines()
    assert heading.split() == ["USER", "SUBJECT", "NAME", "E-MAIL", "ROLES", "STATE"]
    assert row.split() == ["ada", "42", "Ada", "Lovelace", "ada@example.com", "admin", "clerk", "-"]
    assert has_password(data_dir, "ada", PASSWORD)


def test_a_password_that_was_made_is_all_that_is_printed(data_dir: Path) -> None:
    added = typed("user", "add", "bob", "--generate")
    assert added.returncode == 0
    assert "bob is added" in added.stderr
    password = added.stdout.removesuffix("\n")
    assert len(password) >= 20
    assert "\n" not in password
    assert has_password(data_dir, "bob", password)


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(data_dir: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("user", "add", "ada"),
        env=user_environment(MESH_DATA_DIR=str(data_dir), TERM="dumb"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # A terminal of its own, as `getpass` asks for one.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(theirs)
    said = b""
    for prompt, typed_in in ((b"Password: ", PASSWORD), (b"Once more: ", PASSWORD)):
        while prompt not in said:
            said += os.read(ours, 1024)
        os.write(ours, f"{typed_in}\n".encode())
    while b"is added" not in said:
        said += os.read(ours, 1024)
    assert process.wait(PATIENCE_SECONDS) == 0
    os.close(ours)
    assert PASSWORD.encode() not in said
    assert has_password(data_dir, "ada", PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ada",), "There is nobody to ask for a password"),
        (("ada", "--generate", "--password-stdin"), "Either --password-stdin or --generate"),
        (("", "--generate"), "A user name has"),
        (("a\x1bb", "--generate"), "A user name has"),
        (("a" * 101, "--generate"), "A user name has"),
        (("ada", "--generate", "--email", "nowhere"), "no e-mail address"),
        (("ada", "--generate", "--role", "two words"), "A role is one word"),
        (("ada", "--generate", "--subject", "a b"), "A subject is one word"),
        (("ada", "--password-stdin"), "A password has 8 to"),
    ],
)
def test_a_user_that_makes_no_sense_is_one_line_and_2(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    from_stdin(monkeypatch, "short\n")
    refused = typed("user", "add", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert len(typed("user", "list").stdout.splitlines()) == 1


def test_a_name_is_given_once(data_dir: Path) -> None:
    assert typed("user", "add", "ada", "--generate").returncode == 0
    again = typed("user", "add", "ADA", "--generate")
    assert (again.returncode, again.stdout) == (1, "")
    assert "There is an account ada" in again.stderr


def test_a_user_is_disabled(data_dir: Path) -> None:
    typed("user", "add", "ada", "--generate")
    disabled = typed("user", "disable", "Ada")
    assert (disabled.returncode, disabled.stdout) == (0, "Ada is disabled: none of their tokens counts.\n")
    assert typed("user", "list").stdout.split()[-1] == "disabled"
    refused = typed("user", "disable", "nobody")
    assert (refused.returncode, refused.stderr) == (1, "mesh: There is no account 'nobody'\n")


# -------------------------------------------------------------------------------------------------------- clients


def test_the_secret_of_a_client_is_all_that_is_printed(data_dir: Path) -> None:
    added = typed("client", "add", "shop", "--scope", "users:read orders:read", "--scope", "orders:write")
    assert added.returncode == 0
    assert added.stderr == "shop is added, with this secret:\n"
    client = client_of(data_dir, "shop")
    assert client.accepts(added.stdout.strip(), datetime.now(UTC))
    assert client.scopes == ("users:read", "orders:read", "orders:write")
    assert client.audiences == ("mesh",)
    listed = typed("client", "list").stdout
    assert "shop" in listed
    assert "client_credentials" in listed
    assert added.stdout.strip() not in listed


def test_a_public_client_has_nothing_to_print(data_dir: Path) -> None:
    added = typed("client", "add", "web", "--public", "--redirect-uri", "https://web.example/cb", "--audience", "users")
    assert (added.returncode, added.stdout, added.stderr) == (0, "web is added; it has no secret\n", "")
    client = client_of(data_dir, "web")
    assert (client.redirect_uris, client.audiences) == (("https://web.example/cb",), ("users",))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a b",), "A client's id"),
        (("shop", "--grant", "password"), "No grant 'password'"),
        (("shop", "--public"), "needs a redirect URI"),
        (("shop", "--public", "--redirect-uri", "http://web.example"), "a redirect URI is https"),
        (("shop", "--audience", "a b"), "is no audience"),
        (("shop", "--scope", 'a"b'), "is no scope"),
    ],
)
def test_a_client_that_makes_no_sense_is_one_line_and_2(data_dir: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = typed("client", "add", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_secret_is_rotated_with_an_overlap(data_dir: Path) -> None:
    old = typed("client", "add", "shop").stdout.strip()
    rotated = typed("client", "rotate", "shop", "--overlap", "60")
    new, client, now = rotated.stdout.strip(), client_of(data_dir, "shop"), datetime.now(UTC)
    assert rotated.stderr.startswith("The old secret of shop counts until 2")
    assert client.accepts(new, now)
    assert client.accepts(old, now)
    newest = typed("client", "rotate", "shop", "--overlap", "0").stdout.strip()
    client, now = client_of(data_dir, "shop"), datetime.now(UTC)
    assert client.accepts(newest, now)
    assert not client.accepts(new, now)
    assert not client.accepts(old, now)


@pytest.mark.parametrize("overlap", ["-1", "1e300", "nan", "soon", "99999999"])
def test_an_overlap_that_is_none_is_2(data_dir: Path, overlap: str) -> None:
    typed("client", "add", "shop")
    assert typed("client", "rotate", "shop", "--overlap", overlap).returncode == 2


def test_what_is_not_there_has_no_secret_to_rotate(data_dir: Path) -> None:
    refused = typed("client", "rotate", "nobody")
    assert refused.returncode == 1
    assert refused.stderr == "mesh: There is no client 'nobody'; `mesh client list` lists them\n"


def test_a_secret_of_the_demo_is_rotated_in_its_file_too(data_dir: Path) -> None:
    before = secrets.ensure(data_dir / "secrets.json", ["orders"])

    async def seed(database: Database) -> None:
        await demo.seed_with(database, accounts={}, clients=before.clients, issuer="http://127.0.0.1:8000")

    asked(data_dir, seed)
    new = typed("client", "rotate", "orders").stdout.strip()
    after = secrets.read(data_dir / "secrets.json")
    assert after is not None
    assert after.clients == {**before.clients, "orders": new}
    client = client_of(data_dir, "orders")
    assert client.demo
    assert client.accepts(before.clients["orders"], datetime.now(UTC))


def test_a_client_that_is_not_the_demos_is_not_written_to_its_file(data_dir: Path) -> None:
    before = secrets.ensure(data_dir / "secrets.json", ["orders"])
    typed("client", "add", "orders")
    assert typed("client", "rotate", "orders").returncode == 0
    assert secrets.read(data_dir / "secrets.json") == before


# ---------------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("arguments", [("user", "list"), ("client", "list"), ("user", "disable", "ada")])
def test_without_tables_it_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MESH_DATA_DIR", str(tmp_path))
    refused = typed(*arguments)
    assert refused.returncode == 1
    assert refused.stderr == "mesh: The tables of identity are not up to date: `mesh db upgrade identity`\n"
    assert list(tmp_path.iterdir()) == []


def test_production_does_not_start_identity_on_a_database_of_the_demo(
    data_dir: Path, redis_url: str, namespace: str
) -> None:
    async def seed(database: Database) -> None:
        await demo.seed_with(database, accounts={}, clients={}, issuer="http://127.0.0.1:8000")

    asked(data_dir, seed)
    refused = mesh(
        "run", "identity", MESH_ENV="production", MESH_DATA_DIR=str(data_dir), REDIS_URL=redis_url,
        MESH_REGISTRY__NAMESPACE=namespace, MESH_IDENTITY__KEY_SECRET="k" * 32,
    )  # fmt: skip
    assert refused.returncode == 1
    # Before it looks at its database it says what it has to of Redis, where that is slow.
    (said,) = (line for line in refused.stderr.splitlines() if not line.startswith("{"))
    assert said == (
        "mesh: Not in production: identity's database holds clients of the demo (demo-device, demo-web, mesh-cli); "
        "production has a database of its own"
    )
