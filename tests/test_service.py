from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import MetaData

import app.services
from app import service
from app.errors import Misconfigured
from app.service import GATEWAY, Service


@pytest.fixture
def services_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder beside the real one in which a test may write services of its own."""
    monkeypatch.setattr(app.services, "__path__", [*app.services.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write_service(folder: Path, name: str, source: str) -> None:
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text(source)


def test_a_folder_is_all_that_a_service_needs_to_be_found_and_loaded(services_folder: Path) -> None:
    write_service(
        services_folder, "zebra", "from app.service import Service\nservice = Service('zebra', prefixes=('/zebra',))\n"
    )
    assert "zebra" in service.discover()
    assert service.load("zebra").prefixes == ("/zebra",)


def test_services_are_sorted_and_the_gateway_comes_last(services_folder: Path) -> None:
    for name in ("zebra", "aardvark"):
        write_service(services_folder, name, "")
    *others, last = service.discover()
    assert others == sorted(others)
    assert {"aardvark", "zebra"} <= set(others)
    assert last == GATEWAY


def test_a_file_is_no_service(services_folder: Path) -> None:
    (services_folder / "notes.py").write_text("")
    assert "notes" not in service.discover()


def test_finding_services_imports_none_of_them(services_folder: Path) -> None:
    write_service(services_folder, "broken", "raise RuntimeError('imported')\n")
    assert "broken" in service.discover()


@pytest.mark.parametrize("name", ["", "nobody", "../users", "os", "users.views", "__init__"])
def test_an_unknown_service_is_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(Misconfigured, match=GATEWAY):
        service.load(name)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "service = 'odd'\n",
        "from app.service import Service\nservice = Service('even')\n",
    ],
)
def test_a_folder_without_a_service_of_its_name_is_refused(services_folder: Path, source: str) -> None:
    write_service(services_folder, "odd", source)
    with pytest.raises(Misconfigured, match=r"app\.services\.odd must define service = Service\('odd'"):
        service.load("odd")


@pytest.mark.parametrize("name", ["", "Users", "7users", "us-ers", "us ers", "users\n", "../x", "u" * 41, "_users"])
def test_a_name_that_could_not_be_a_folder_or_a_redis_key_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="Service name"):
        Service(name)


@pytest.mark.parametrize("prefix", ["", "/", "users", "/users/", "//users", "/Users", "/us ers", "/users\n", "/*"])
def test_a_prefix_that_could_not_be_routed_is_refused(prefix: str) -> None:
    with pytest.raises(Misconfigured, match="prefix"):
        Service("users", prefixes=(prefix,))


@pytest.mark.parametrize("prefix", ["/users", "/api/v1/users", "/.well-known", "/a_b~c-d"])
def test_ordinary_prefixes_are_accepted(prefix: str) -> None:
    assert Service("users", prefixes=(prefix,)).prefixes == (prefix,)


def test_models_need_migrations() -> None:
    with pytest.raises(Misconfigured, match="migrations"):
        Service("users", models=MetaData())
    assert Service("users", models=MetaData(), migrations=Path("migrations")).migrations == Path("migrations")


@pytest.mark.parametrize("name", service.discover())
def test_every_service_of_this_house_loads(name: str) -> None:
    assert service.load(name).name == name


def test_no_two_services_of_this_house_announce_the_same_prefix() -> None:
    prefixes = [prefix for name in service.discover() for prefix in service.load(name).prefixes]
    assert len(set(prefixes)) == len(prefixes)
