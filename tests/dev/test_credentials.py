"""What a process of the demo is told of the issuer."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from app import settings
from app.dev import credentials
from app.dev.secrets import Secrets

EDGE = "http://127.0.0.1:8123"
KNOWN = Secrets(key_secret="key", accounts={}, clients={"users": "of users", "identity": "of identity"})


def test_a_service_gets_the_issuer_and_its_own_secret_and_no_other() -> None:
    assert credentials.variables("users", issuer=EDGE, known=KNOWN, given=()) == {
        "MESH_AUTH__ISSUER": EDGE,
        "MESH_AUTH__CLIENT_SECRET": "of users",
    }


def test_identity_alone_gets_the_key_to_its_keys() -> None:
    told = credentials.variables("identity", issuer=EDGE, known=KNOWN, given=())
    assert told["MESH_IDENTITY__KEY_SECRET"] == "key"


@pytest.mark.parametrize("name", ["MESH_AUTH__CLIENT_SECRET", "mesh_auth__client_secret"])
def test_what_the_user_has_set_wins(name: str) -> None:
    assert credentials.variables("users", issuer=EDGE, known=KNOWN, given=[name]) == {"MESH_AUTH__ISSUER": EDGE}


def test_where_there_is_no_demo_there_is_an_issuer_still() -> None:
    assert credentials.variables("users", issuer=EDGE, known=None, given=()) == {"MESH_AUTH__ISSUER": EDGE}


def test_told_is_as_if_it_had_been_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings.load()
    told = credentials.variables("identity", issuer=EDGE, known=KNOWN, given=())
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert credentials.told(before, told) == settings.load()
    assert credentials.told(before, {}) == before
    assert settings.load().auth.client_secret == SecretStr("of identity")
