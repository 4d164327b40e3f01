"""Clients and scopes: what is decided without asking anybody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.services.identity import scopes
from app.services.identity.client import AUTHORIZATION_CODE, Client, digest, matches, new_secret

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
CLIENT = Client("web", "Web", "client_secret_basic", (AUTHORIZATION_CODE,), ("openid", "orders:read"), ("mesh",))

SAME = [
    ("https://a.example/cb", "https://a.example/cb"),
    ("http://127.0.0.1/cb", "http://127.0.0.1/cb"),
    ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb"),
    ("http://127.0.0.1:80/cb", "http://127.0.0.1:65535/cb"),
    ("http://[::1]/cb?a=b", "http://[::1]:7000/cb?a=b"),
    ("http://127.0.0.1", "http://127.0.0.1:7000"),
    ("http://localhost:7000/cb", "http://localhost:7000/cb"),
    ("com.example.app:/cb", "com.example.app:/cb"),
]
OTHER = [
    ("https://a.example/cb", "https://a.example/cb/"),
    ("https://a.example/cb", "https://a.example/cb?x=y"),
    ("https://a.example/cb", "https://a.example/cb#x"),
    ("https://a.example/cb", "https://a.example:443/cb"),
    ("https://a.example/cb", "http://a.example/cb"),
    ("https://a.example/cb", "https://A.example/cb"),
    ("https://a.example/cb", "https://a.example/x/../cb"),
    ("https://127.0.0.1/cb", "https://127.0.0.1:7000/cb"),
    ("http://localhost/cb", "http://localhost:7000/cb"),
    ("http://127.0.0.1/cb", "http://[::1]/cb"),
    ("http://127.0.0.1/cb", "http://localhost/cb"),
    ("http://127.0.0.1/cb", "http://127.0.0.1:/cb"),
    ("http://127.0.0.1/cb", "http://127.0.0.1:7000@evil.example/cb"),
    ("http://127.0.0.1/cb", "http://127.0.0.1.evil.example/cb"),
    ("http://127.0.0.1/cb", "http://127.0.0.1:7000/cb#x"),
    ("http://127.0.0.1/cb", "http://127.0.0.1:7000/cb\n"),
    ("http://127.0.0.1/cb", "http://user@127.0.0.1:7000/cb"),
    ("http://127.0.0.1", "http://127.0.0.1:7000/"),
]


@pytest.mark.parametrize(("registered", "asked"), SAME)
def test_an_address_is_itself_on_any_loopback_port(registered: str, asked: str) -> None:
    assert matches(registered, asked)


@pytest.mark.parametrize(("registered", "asked"), OTHER)
def test_an_address_is_no_other(registered: str, asked: str) -> None:
    assert not matches(registered, asked)


def test_an_old_secret_counts_until_its_time_is_over() -> None:
    secret, old = new_secret(), new_secret()
    until = NOW + timedelta(hours=1)
    rotated = replace(
        CLIENT, secret_digest=digest(secret), old_secret_digest=digest(old), old_secret_until=until
    )  # fmt: skip
    assert rotated.accepts(secret, until)
    assert rotated.accepts(old, NOW)
    assert not rotated.accepts(old, until)
    assert not rotated.accepts("", NOW)
    assert not CLIENT.accepts("", NOW)
    assert not CLIENT.accepts("\ud800", NOW)


def test_a_client_asks_for_what_it_is_registered_with() -> None:
    assert CLIENT.get_allowed_scope(None) == "openid orders:read"
    assert CLIENT.get_allowed_scope("orders:read orders:read") == "orders:read"
    assert CLIENT.get_allowed_scope("orders:read orders:write") is None
    assert replace(CLIENT, scopes=()).get_allowed_scope(None) is None


def test_what_administrators_may_only_they_give_away() -> None:
    wanted = ("orders:read", "orders:admin", "inventory:write", "inventory:reserve")
    assert scopes.for_user(wanted, ()) == ("orders:read",)
    assert scopes.for_user(wanted, ("admin",)) == ("orders:read", "orders:admin", "inventory:write")
    assert scopes.for_client((*wanted, "openid", "email")) == wanted


def test_a_client_shows_no_secret() -> None:
    secret = new_secret()
    assert secret not in repr(replace(CLIENT, secret_digest=digest(secret)))
    assert repr(CLIENT) == "<Client web client_secret_basic>"
