from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from app import settings
from app.auth.assembly import open_auth
from app.errors import InvalidToken, Misconfigured, NoInstance, Unavailable
from app.settings import AuthSettings
from tests.tokens import TestIssuer


class Wire:
    """The issuer, as a process reaches it."""

    def __init__(self, issuer: TestIssuer) -> None:
        self._issuer = issuer
        self.away = False
        self.asked: list[str] = []

    async def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.away:
            raise NoInstance("identity: nobody is ready")
        answer = {
            "/oauth/jwks": self._issuer.jwks,
            "/oauth/token": {"access_token": "t", "expires_in": 60},
            "/oauth/introspect": {"active": True},
        }
        return 200, json.dumps(answer[path]).encode()


def auth_settings(**changes: object) -> AuthSettings:
    return settings.load(auth=changes).auth


async def test_a_guard_believes_the_issuers_tokens_for_us_and_for_the_public(issuer: TestIssuer) -> None:
    async with open_auth(auth_settings(), service="things", issuer="identity", send=Wire(issuer)) as auth:
        assert (await auth.verifier.verify(issuer.user(7))).subject == "7"
        assert (await auth.verifier.verify(issuer.client("orders", aud="things"))).caller == "orders"
        with pytest.raises(InvalidToken):
            await auth.verifier.verify(issuer.client("orders", aud="users"))
        assert auth.outbound is None
        assert auth.describe()["keys"] == [issuer.kid]


async def test_with_credentials_it_has_tokens_for_peers_and_can_ask_the_issuer(issuer: TestIssuer) -> None:
    wire = Wire(issuer)
    async with open_auth(auth_settings(client_secret="s"), service="things", issuer="identity", send=wire) as auth:
        assert auth.outbound is not None
        assert await auth.outbound.fetch("users", as_user=False) == "t"
        principal = await auth.verifier.verify(issuer.user(7))
        await auth.introspector.check(issuer.user(7), principal)
        assert "users" in auth.describe()["own_tokens_seconds_left"]
    assert wire.asked == ["/oauth/token", "/oauth/jwks", "/oauth/introspect"]


async def test_an_issuer_that_is_away_is_not_fatal_and_the_copy_on_disk_counts(
    issuer: TestIssuer, tmp_path: Path
) -> None:
    wire, disk = Wire(issuer), tmp_path / "things.jwks"
    async with open_auth(auth_settings(), service="things", issuer="identity", send=wire, keys_file=disk) as auth:
        await auth.verifier.verify(issuer.user(7))
    wire.away = True
    async with open_auth(auth_settings(), service="things", issuer="identity", send=wire, keys_file=disk) as auth:
        assert (await auth.verifier.verify(issuer.user(8))).subject == "8"
    async with open_auth(auth_settings(), service="things", issuer="identity", send=wire) as auth:
        with pytest.raises(Unavailable):
            await auth.verifier.verify(issuer.user(8))


async def test_fixed_keys_are_believed_without_asking_anybody(issuer: TestIssuer) -> None:
    wire = Wire(issuer)
    fixed = auth_settings(jwks_file=issuer.jwks_file)
    async with open_auth(fixed, service="things", issuer="identity", send=wire) as auth:
        assert (await auth.verifier.verify(issuer.user(7))).subject == "7"
    assert wire.asked == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"keys": []}'], ids=["missing", "empty", "no set", "no keys"])
async def test_fixed_keys_that_cannot_be_read_stop_the_start(
    issuer: TestIssuer, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match="jwks_file"):
        async with open_auth(auth_settings(jwks_file=file), service="things", issuer="identity", send=Wire(issuer)):
            pass


async def test_who_has_a_session_that_ended_is_refused_at_once(issuer: TestIssuer) -> None:
    async with open_auth(auth_settings(), service="things", issuer="identity", send=Wire(issuer)) as auth:
        token = issuer.user(7)
        await auth.verifier.verify(token)
        auth.revocations.heard({"family-1": 4e9})
        with pytest.raises(InvalidToken, match="session"):
            await auth.verifier.verify(token)
