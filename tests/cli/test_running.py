"""What a command or a process that joins a running system is told of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app import settings
from app.cli import running
from app.dev import lock, secrets, state
from app.dev.secrets import Secrets
from app.dev.state import State
from app.errors import Misconfigured

EDGE = "http://127.0.0.1:8123"


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secrets]:
    """A system of this process, with its demo's secrets."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    made = secrets.ensure(tmp_path / "secrets.json", ["users", "identity"])
    with lock.exclusive(tmp_path / state.LOCK_FILE):
        system = State(
            phase="ready", pid=os.getpid(), url=EDGE, redis_url="redis://h", namespace="demo", redis_pid=None
        )
        state.write(tmp_path, system)
        yield made


def test_who_joins_gets_the_issuer_and_its_own_secret(tmp_path: Path, known: Secrets) -> None:
    joined, system = running.joining(settings.load(data_dir=tmp_path, service="users"))
    assert system is not None
    assert joined.auth.issuer == EDGE
    assert joined.auth.client_secret == SecretStr(known.clients["users"])
    assert joined.identity.key_secret is None
    assert joined.registry.namespace == "demo"


def test_identity_gets_the_secret_of_its_keys(tmp_path: Path, known: Secrets) -> None:
    joined, _ = running.joining(settings.load(data_dir=tmp_path, service="identity"))
    assert joined.identity.key_secret == SecretStr(known.key_secret)


def test_what_the_user_has_set_wins(tmp_path: Path, known: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_AUTH__ISSUER", "https://id.example")
    monkeypatch.setenv("MESH_AUTH__CLIENT_SECRET", "mine")
    monkeypatch.setenv("MESH_IDENTITY__KEY_SECRET", "my key")
    joined, _ = running.joining(settings.load(data_dir=tmp_path, service="identity"))
    assert joined.auth.issuer == "https://id.example"
    assert joined.auth.client_secret == SecretStr("mine")
    assert joined.identity.key_secret == SecretStr("my key")


def test_production_gets_nothing_of_the_demo(tmp_path: Path, known: Secrets) -> None:
    given = settings.load(data_dir=tmp_path, service="identity", env="production")
    joined, _ = running.joining(given)
    assert (joined.auth, joined.identity) == (given.auth, given.identity)


def test_a_command_is_told_the_issuer_and_no_secret(tmp_path: Path, known: Secrets) -> None:
    for told in (running.find(tmp_path).settings, running.issuing(tmp_path)):
        assert told.auth.issuer == EDGE
        assert told.auth.client_secret is None


def test_secrets_that_are_open_to_others_are_not_joined(tmp_path: Path, known: Secrets) -> None:
    (tmp_path / "secrets.json").chmod(0o644)
    with pytest.raises(Misconfigured, match="open to others"):
        running.joining(settings.load(data_dir=tmp_path, service="users"))
    # Who only looks needs none.
    assert running.find(tmp_path).redis_url == "redis://h"
