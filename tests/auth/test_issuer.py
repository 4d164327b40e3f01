from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import parse_qs

import pytest

from app.auth.issuer import Issuer
from app.errors import MeshError, NoInstance, Unavailable


class Wire:
    """What is sent, and what comes back."""

    def __init__(self, status: int = 200, body: bytes = b"{}") -> None:
        self.status, self.body = status, body
        self.sent: list[tuple[str, str, bytes, Mapping[str, str]]] = []

    async def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.sent.append((method, path, body, headers))
        if self.status == 0:
            raise NoInstance("identity: nobody is ready", retry_after=1.0)
        return self.status, self.body


def issuer(wire: Wire, client_id: str = "orders", secret: str | None = "s3cret") -> Issuer:
    return Issuer(wire, client_id=client_id, client_secret=secret)


async def test_keys_are_asked_for_without_credentials() -> None:
    wire = Wire(body=b'{"keys": []}')
    assert await issuer(wire).keys() == b'{"keys": []}'
    assert wire.sent == [("GET", "/oauth/jwks", b"", {})]


async def test_tokens_and_words_are_asked_for_as_a_form_with_basic_credentials() -> None:
    wire = Wire(body=b'{"access_token": "t"}')
    assert await issuer(wire).token({"grant_type": "client_credentials", "audience": "a b&c"}) == {"access_token": "t"}
    await issuer(wire).introspect({"token": "t"})
    (_, path, body, headers), (_, other, _, _) = wire.sent
    assert (path, other) == ("/oauth/token", "/oauth/introspect")
    assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"], "audience": ["a b&c"]}
    assert headers == {
        "authorization": f"Basic {base64.b64encode(b'orders:s3cret').decode()}",
        "content-type": "application/x-www-form-urlencoded",
    }


async def test_both_parts_of_the_credentials_are_form_encoded_first() -> None:
    wire = Wire()
    await issuer(wire, "a:b", "p:% ü+").token({})
    raw = base64.b64decode(wire.sent[0][3]["authorization"].removeprefix("Basic "))
    assert raw == b"a%3Ab:p%3A%25+%C3%BC%2B"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b'{"error": 7}', b'{"error": "invalid_grant"}', b"\xff"])
@pytest.mark.parametrize("status", [400, 401, 500, 503])
async def test_a_refusal_is_unavailable_for_now_and_says_which(status: int, body: bytes) -> None:
    with pytest.raises(Unavailable, match=f"answers {status}") as refused:
        await issuer(Wire(status, body)).token({})
    assert refused.value.retry_after == 1.0
    assert "s3cret" not in str(refused.value)
    if b"invalid_grant" in body:
        assert "invalid_grant" in refused.value.detail


async def test_of_what_it_says_only_so_much_is_repeated() -> None:
    with pytest.raises(Unavailable) as refused:
        await issuer(Wire(400, b'{"error": "' + b"x" * 5000 + b'"}')).token({})
    assert len(refused.value.detail) < 120


async def test_an_answer_without_json_is_an_empty_one() -> None:
    assert await issuer(Wire(200, b"<html>")).introspect({}) == {}


@pytest.mark.parametrize("status", [404, 500])
async def test_without_keys_it_says_so(status: int) -> None:
    with pytest.raises(Unavailable, match="keys"):
        await issuer(Wire(status)).keys()


async def test_an_issuer_that_is_away_is_an_error_of_the_mesh() -> None:
    for ask in (issuer(Wire(0)).keys(), issuer(Wire(0)).token({}), issuer(Wire(0)).introspect({})):
        with pytest.raises(MeshError):
            await ask


async def test_who_has_no_credentials_may_only_ask_for_the_keys() -> None:
    wire = Wire()
    stranger = issuer(wire, secret=None)
    assert not stranger.knows_us
    await stranger.keys()
    for ask in (stranger.token({}), stranger.introspect({})):
        with pytest.raises(Unavailable, match="no credentials"):
            await ask
    assert len(wire.sent) == 1


def test_its_repr_holds_no_secret() -> None:
    assert repr(issuer(Wire())) == "<Issuer for orders>"
    assert repr(issuer(Wire(), secret=None)) == "<Issuer for orders, without credentials>"
