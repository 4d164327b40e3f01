from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import settings
from app.errors import Misconfigured
from app.settings import CONFIG_DIR, ROOT, Settings

SECRET = "hunter2-s3cret"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the machine that runs the tests does not count here."""
    for name in list(os.environ):
        if name.startswith("MESH_") or name in {"REDIS_URL", "DATABASE_URL", "DATABASE_READ_URL"}:
            monkeypatch.delenv(name)


def test_the_file_gives_the_defaults() -> None:
    with (CONFIG_DIR / "settings.toml").open("rb") as file:
        written = tomllib.load(file)
    loaded = settings.load()
    assert loaded.host == written["host"]
    assert loaded.request_timeout_seconds == written["request_timeout_seconds"]
    assert loaded.registry.lease_seconds == written["registry"]["lease_seconds"]
    assert loaded.client.retries == written["client"]["retries"]


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_HOST", "0.0.0.0")
    monkeypatch.setenv("MESH_PORT", "8123")
    monkeypatch.setenv("MESH_REGISTRY__LEASE_SECONDS", "3.5")
    loaded = settings.load()
    assert (loaded.host, loaded.port, loaded.registry.lease_seconds) == ("0.0.0.0", 8123, 3.5)


def test_one_key_of_a_table_from_the_environment_leaves_the_others_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = settings.load().registry
    monkeypatch.setenv("MESH_REGISTRY__NAMESPACE", "other")
    assert settings.load().registry == before.model_copy(update={"namespace": "other"})


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_PORT", "8123")
    assert settings.load(port=9000).port == 9000


@pytest.mark.parametrize("name", ["REDIS_URL", "MESH_REDIS_URL"])
def test_redis_is_named_by_either_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "redis://elsewhere:6380/1")
    assert settings.load().redis_url.get_secret_value() == "redis://elsewhere:6380/1"


def test_a_service_has_a_sqlite_file_of_its_own_unless_a_database_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert (
        settings.load(data_dir=tmp_path).database_url_of("users") == f"sqlite+aiosqlite:///{tmp_path / 'users.sqlite3'}"
    )
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://u@db/x")
    assert settings.load().database_url_of("users") == "postgresql+asyncpg://u@db/x"


@pytest.mark.parametrize("name", ["DATABASE_READ_URL", "MESH_DATABASE_READ_URL"])
def test_a_replica_is_named_by_either_variable_and_there_is_none_by_default(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert settings.load().read_url is None
    monkeypatch.setenv(name, "postgresql+asyncpg://u@replica/x")
    assert settings.load().read_url == "postgresql+asyncpg://u@replica/x"


def test_a_relative_data_directory_still_gives_an_absolute_database_path() -> None:
    url = settings.load(data_dir=Path("somewhere")).database_url_of("users")
    assert Path(url.removeprefix("sqlite+aiosqlite:///")).is_absolute()


def test_secrets_are_never_printed() -> None:
    url = f"postgresql+asyncpg://u:{SECRET}@h/x"
    loaded = settings.load(redis_url=f"redis://:{SECRET}@h:1/0", database_url=url, read_database_url=url, env="test")
    for text in (repr(loaded), str(loaded), repr(loaded.model_dump()), loaded.model_dump_json()):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("MESH_PORT", "port"),
        ("MESH_REQUEST_TIMEOUT_SECONDS", "request_timeout_seconds"),
        ("MESH_REGISTRY__LEASE_SECONDS", "registry.lease_seconds"),
        ("MESH_REGISTRY__NAMESPACE", "registry.namespace"),
        ("MESH_LOG_LEVEL", "log_level"),
        ("MESH_ENV", "env"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, key: str
) -> None:
    monkeypatch.setenv(variable, SECRET + " ?")
    with pytest.raises(Misconfigured) as caught:
        settings.load()
    assert key in caught.value.detail
    assert SECRET not in caught.value.detail
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_every_wrong_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_PORT", "99999999")
    monkeypatch.setenv("MESH_DRAIN_SECONDS", "-1")
    with pytest.raises(Misconfigured, match=r"port.*drain_seconds"):
        settings.load()


@pytest.mark.parametrize("variable", ["MESH_REGISTRY__LEASE", "MESH_CLIENT__TIMEOUT"])
def test_a_misspelt_key_of_a_table_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "5")
    with pytest.raises(Misconfigured, match=variable.split("__")[1].lower()):
        settings.load()


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(Misconfigured, match="prot"):
        settings.load(prot=1)


def test_settings_are_frozen() -> None:
    loaded = settings.load()
    with pytest.raises(ValidationError):
        loaded.port = 1  # type: ignore[misc]  # that is the point
    with pytest.raises(ValidationError):
        loaded.registry.lease_seconds = 1.0  # type: ignore[misc]  # that is the point


def test_settings_are_found_from_any_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(settings.load(), Settings)
    assert settings.load().data_dir == ROOT / ".mesh"


@pytest.mark.parametrize(
    ("hedge", "hedged"),
    [
        (False, []),
        (True, ["/users/7", "/users", "/users?x=1", "/usersonly"]),
        (["/users"], ["/users/7", "/users", "/users?x=1"]),
    ],
)
def test_a_services_calls_are_hedged_by_prefixes_on_borders_of_segments(hedge: object, hedged: list[str]) -> None:
    users = settings.load(client={"services": {"users": {"hedge": hedge}}}).client.services["users"]
    paths = ["/users/7", "/users", "/users?x=1", "/usersonly"]
    assert [path for path in paths if users.hedges(path)] == hedged


def test_a_services_own_table_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_CLIENT__SERVICES", '{"users": {"timeout_seconds": 2.5, "hedge": ["/users"]}}')
    users = settings.load().client.services["users"]
    assert (users.timeout_seconds, users.hedge, users.retries) == (2.5, ("/users",), None)
