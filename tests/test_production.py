"""What a process must not start with in production."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app import production, settings
from app.asgi import Process, serve
from app.errors import Misconfigured
from app.service import Service, load
from app.settings import Settings

GOOD = "a-secret-of-at-least-32-characters"
DEMO = "the-demos-secret-is-long-enough-too"
USERS, ORDERS = Service("users"), Service("orders", calls=("users",))
IDENTITY = Service("identity")


def configured(data_dir: Path, *, env: str = "production", **changed: Any) -> Settings:
    """Settings with which everything may start, but for what is changed."""
    auth = {"issuer": "https://id.example", "client_secret": GOOD}
    given = {name: value for name, value in (auth | changed).items() if name in ("issuer", "client_secret")}
    return settings.load(
        env=env, data_dir=data_dir, auth=given, identity={"key_secret": changed.get("key_secret", GOOD)}
    )


@pytest.mark.parametrize("service", [USERS, ORDERS, IDENTITY])
def test_what_is_as_it_should_be_starts(tmp_path: Path, service: Service) -> None:
    assert production.problems(configured(tmp_path), service) == ()
    production.require(configured(tmp_path), service, debug=False)


@pytest.mark.parametrize("issuer", ["http://id.example", "http://10.0.0.1:8000", "http://127.0.0.1.example"])
def test_an_issuer_that_anybody_on_the_way_can_play_is_refused(tmp_path: Path, issuer: str) -> None:
    (problem,) = production.problems(configured(tmp_path, issuer=issuer), USERS)
    assert problem == "the issuer (MESH_AUTH__ISSUER) is http, and not on this machine"


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "https://10.0.0.1"]
)
def test_on_this_machine_it_may_be_plain(tmp_path: Path, issuer: str) -> None:
    assert production.problems(configured(tmp_path, issuer=issuer), USERS) == ()


@pytest.mark.parametrize(
    ("secret", "said"),
    [("", "is empty"), ("x" * 31, "has fewer than 32 characters"), (DEMO, "is the demo's")],
)
def test_a_weak_client_secret_is_refused(tmp_path: Path, secret: str, said: str) -> None:
    weak = configured(tmp_path, client_secret=secret)
    (problem,) = production.problems(weak, USERS, demo=None if secret != DEMO else {DEMO})[:1]
    assert problem == f"the client secret (MESH_AUTH__CLIENT_SECRET) {said}"


def test_who_calls_others_needs_a_secret_and_who_calls_nobody_does_not(tmp_path: Path) -> None:
    without = configured(tmp_path, client_secret=None)
    assert production.problems(without, USERS) == ()
    (problem,) = production.problems(without, ORDERS)
    assert "there is no client secret" in problem


@pytest.mark.parametrize(
    ("secret", "said"),
    [(None, "is empty"), ("x" * 31, "has fewer than 32 characters"), (DEMO, "is the demo's")],
)
def test_identity_needs_a_strong_secret_for_its_keys(tmp_path: Path, secret: str | None, said: str) -> None:
    weak = configured(tmp_path, key_secret=secret)
    found = production.problems(weak, IDENTITY, demo=None if secret != DEMO else {DEMO})
    assert found[0] == f"the secret that encrypts the signing keys (MESH_IDENTITY__KEY_SECRET) {said}"
    assert production.problems(weak, USERS) == ()


def test_debug_is_refused_and_the_log_level_debug_is_not(tmp_path: Path) -> None:
    chatty = configured(tmp_path).model_copy(update={"log_level": "debug"})
    production.require(chatty, USERS, debug=False)
    with pytest.raises(Misconfigured, match="debug mode is on"):
        production.require(chatty, USERS, debug=True)


@pytest.mark.parametrize("content", [json.dumps({"clients": {"users": DEMO}, "key_secret": "k"}), "{", ""])
def test_the_demos_data_directory_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(Misconfigured, match=r"the data directory is a demo's: secrets\.json lies in it"):
        production.require(configured(tmp_path), USERS, debug=False)


def test_the_demos_secrets_are_known_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    assert production.demo_secrets(file) is None
    file.write_text(json.dumps({"key_secret": "k", "accounts": {"admin": "a"}, "clients": {"users": "u"}}))
    assert production.demo_secrets(file) == frozenset({"k", "a", "u"})


def test_all_that_is_wrong_is_said_in_one_line_that_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text(json.dumps({"clients": {"users": DEMO}}))
    wrong = configured(tmp_path, issuer="http://id.example", client_secret=DEMO, key_secret="k3y")
    with pytest.raises(Misconfigured) as refused:
        production.require(wrong, IDENTITY, debug=True)
    said = refused.value.detail
    assert said.startswith("Not in production: ")
    assert len(said.split("; ")) == 5
    assert "\n" not in said
    assert DEMO not in said
    assert "k3y" not in said


def test_in_development_all_of_it_is_all_right(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{}")
    loose = configured(tmp_path, env="development", issuer="http://id.example", client_secret="")
    production.require(loose, ORDERS, debug=True)


def test_no_process_is_made_that_must_not_serve(tmp_path: Path) -> None:
    wrong = configured(tmp_path, issuer="http://id.example").model_copy(update={"service": "users"})
    with pytest.raises(Misconfigured, match="Not in production"):
        serve(wrong)
    # Another ASGI server makes it without `serve`.
    with pytest.raises(Misconfigured, match="Not in production"):
        Process(load("users"), wrong, "http://127.0.0.1:1")


def test_flasks_debug_mode_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    with pytest.raises(Misconfigured, match="FLASK_DEBUG"):
        Process(load("users"), configured(tmp_path), "http://127.0.0.1:1")
