"""What is not believed, and at which point exactly."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.auth import claims
from app.auth.claims import Header
from app.errors import InvalidToken

NOW, LEEWAY = 1_000_000.0, 30.0
HEADER = {"typ": "at+jwt", "alg": "ES256", "kid": "k"}
GOOD = {"iss": "https://issuer", "aud": "mesh", "sub": "7", "client_id": "web", "iat": NOW, "exp": NOW + 60}


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(header: Any, payload: Any = b"{}", signature: bytes = b"signature") -> str:
    return ".".join((encoded(header), encoded(payload), encoded(signature)))


def read_header(value: str, max_bytes: int = 8192) -> Header:
    return claims.read_header(value, max_bytes=max_bytes)


def read(**changes: Any) -> Any:
    given_ = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return claims.read(given_, issuer="https://issuer", audiences={"mesh", "things"}, now=NOW, leeway_seconds=LEEWAY)


# ------------------------------------------------------------------------------------------------ the header


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt"])
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "Ed25519"])
def test_a_header_says_which_key_and_how(kind: str, algorithm: str) -> None:
    assert read_header(token({"typ": kind, "alg": algorithm, "kid": "k"})) == Header("k", algorithm)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "HS512", "RS256", "ES384", "es256", "", None, 7, ["ES256"]]
)
def test_another_algorithm_is_refused(algorithm: Any) -> None:
    with pytest.raises(InvalidToken, match="algorithm"):
        read_header(token(HEADER | {"alg": algorithm}))


@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"])
@pytest.mark.parametrize("value", [None, "https://evil.example/keys", {}, ["b64"], False])
def test_a_header_that_brings_a_key_or_changes_what_is_signed_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidToken, match="not acceptable"):
        read_header(token(HEADER | {name: value}))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "id+jwt", "at+jwt ", "", None, 7, ["at+jwt"]])
def test_what_is_no_access_token_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidToken, match="access token"):
        read_header(token(HEADER | {"typ": kind}))


@pytest.mark.parametrize("name", ["typ", "alg", "kid"])
def test_nothing_may_be_left_out(name: str) -> None:
    with pytest.raises(InvalidToken):
        read_header(token({key: value for key, value in HEADER.items() if key != name}))


@pytest.mark.parametrize("kid", ["", "k" * 257, None, 7, ["k"], {"k": 1}])
def test_a_key_must_be_named(kid: Any) -> None:
    with pytest.raises(InvalidToken, match="key"):
        read_header(token(HEADER | {"kid": kid}))


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"7", b'"at+jwt"', b"null", b"\xff\xfe", b"[" * 3000])
def test_a_header_that_is_no_object_is_malformed(header: bytes) -> None:
    with pytest.raises(InvalidToken, match="malformed"):
        read_header(token(header))


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "é.b.c", "\ud800.b.c", " a.b.c", "a.b.c\n", "a=.b.c", "a+.b.c"],
)
def test_what_is_not_three_parts_in_base64url_is_malformed(value: str) -> None:
    with pytest.raises(InvalidToken, match="malformed"):
        read_header(value)


def test_an_unsigned_token_is_malformed() -> None:
    with pytest.raises(InvalidToken, match="malformed"):
        read_header(token(HEADER, signature=b""))


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    good = token(HEADER, signature=b"\x00")
    assert good.endswith(".AA")
    read_header(good)
    for other in (f"{good}==", f"{good[:-1]}B", f"{good[:-1]}A "):
        with pytest.raises(InvalidToken, match="malformed"):
            read_header(other)


def test_a_token_may_be_so_long_and_no_longer() -> None:
    good = token(HEADER)
    read_header(good, max_bytes=len(good))
    with pytest.raises(InvalidToken, match="too long"):
        read_header(good, max_bytes=len(good) - 1)


@given(st.text())
def test_no_text_is_more_than_invalid(value: str) -> None:
    with pytest.raises(InvalidToken):
        read_header(value)


# ------------------------------------------------------------------------------------------------ the claims


def test_claims_become_a_principal() -> None:
    user = read(scope="a b  a", roles=["admin"], sid="family", aud=["mesh", "other"])
    assert (user.subject, user.client_id, user.session, user.actor) == ("7", "web", "family", None)
    assert (user.scopes, user.roles, user.audience) == ({"a", "b"}, {"admin"}, {"mesh", "other"})
    assert user.expires_at == NOW + 60
    assert not user.is_client
    assert user.caller is None


def test_a_client_speaks_for_itself_and_an_actor_for_its_user() -> None:
    assert read(sub="orders", client_id="orders").caller == "orders"
    assert read(sub="orders", client_id="orders").is_client
    stand_in = read(sid="family", act={"sub": "orders", "act": {"sub": "gateway"}})
    assert (stand_in.caller, stand_in.is_client, stand_in.owns(7)) == ("orders", False, True)


@pytest.mark.parametrize("issuer", ["https://issuer/", "http://issuer", "", None, ["https://issuer"], 7])
def test_another_issuers_token_is_refused(issuer: Any) -> None:
    with pytest.raises(InvalidToken, match="issuer"):
        read(iss=issuer)


@pytest.mark.parametrize("audience", ["other", "", "mesh things", [], ["other"], ["MESH"]])
def test_a_token_for_somebody_else_is_refused(audience: Any) -> None:
    with pytest.raises(InvalidToken, match="somebody else"):
        read(aud=audience)


@pytest.mark.parametrize("audience", [None, 7, {"mesh": 1}, ["mesh", 7], [["mesh"]], True])
def test_an_audience_that_is_no_list_of_names_is_refused(audience: Any) -> None:
    with pytest.raises(InvalidToken):
        read(aud=audience)


def test_a_token_expires_with_the_leeway_and_not_before() -> None:
    read(exp=NOW - LEEWAY + 0.001)
    with pytest.raises(InvalidToken, match="expired"):
        read(exp=NOW - LEEWAY)


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_a_token_is_valid_with_the_leeway_and_not_before(name: str) -> None:
    read(**{name: NOW + LEEWAY})
    with pytest.raises(InvalidToken, match="not valid yet"):
        read(**{name: NOW + LEEWAY + 0.001})


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [True, False, "1000060", [], {}, float("nan"), float("inf"), float("-inf"), 1e300, 10**400, -(10**400)],
    ids=lambda value: str(value)[:8],
)
def test_what_is_no_time_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidToken, match="no time"):
        read(**{name: value})


@pytest.mark.parametrize("name", ["exp", "iat", "sub", "client_id", "aud", "iss"])
def test_what_an_access_token_must_say_may_not_be_left_out(name: str) -> None:
    with pytest.raises(InvalidToken):
        read(**{name: None})


def test_not_before_may_be_left_out() -> None:
    assert read(nbf=None).subject == "7"


@pytest.mark.parametrize("name", ["sub", "client_id", "sid"])
@pytest.mark.parametrize("value", ["", "x" * 257, 7, True, ["7"]], ids=["empty", "long", "number", "bool", "list"])
def test_a_name_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidToken, match=f"{name} is missing"):
        read(**{name: value})


def test_a_session_of_null_is_not_no_session() -> None:
    with pytest.raises(InvalidToken, match="sid"):
        claims.read(GOOD | {"sid": None}, issuer="https://issuer", audiences={"mesh"}, now=NOW, leeway_seconds=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": ["a"]}, {"scope": 7}, {"scope": {"a": 1}}, {"roles": 7}, {"roles": [7]}, {"roles": {"admin": 1}},
        {"roles": [["admin"]]}, {"act": "orders"}, {"act": ["orders"]}, {"act": {}}, {"act": {"sub": 7}},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_list_or_actor_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        read(**changes)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "scope", "roles", "sid", "act", "nbf"]), json_values))
def test_no_claims_are_more_than_invalid(changes: dict[str, Any]) -> None:
    said = ""
    try:
        claims.read(GOOD | changes, issuer="https://issuer", audiences={"mesh"}, now=NOW, leeway_seconds=LEEWAY)
    except InvalidToken as refused:
        said = refused.detail
    # It goes into a header: plain ASCII without quotes.
    assert said.isascii()
    assert '"' not in said
