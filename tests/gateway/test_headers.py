from __future__ import annotations

from ipaddress import ip_network

import pytest

from app.gateway import headers
from app.gateway.headers import Client

STRANGER = Client("203.0.113.9", "http", b"shop.example")
PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def inward(*pairs: tuple[bytes, bytes], client: Client = STRANGER) -> list[tuple[str, str]]:
    return headers.inward(pairs, client, trusted=PROXIES)


def names(passed: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in passed]


def test_ordinary_headers_pass_in_order_with_their_duplicates() -> None:
    given = [(b"accept", b"a"), (b"cookie", b"x=1"), (b"accept", b"b"), (b"host", b"shop.example")]
    assert inward(*given)[:4] == [("accept", "a"), ("cookie", "x=1"), ("accept", "b"), ("host", "shop.example")]


@pytest.mark.parametrize(
    "name",
    [
        b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"expect", b"content-length",
    ],
)  # fmt: skip
def test_what_belongs_to_the_clients_connection_stays_here(name: bytes) -> None:
    assert name.decode() not in names(inward((name, b"1")))


def test_what_connection_names_stays_here_in_whatever_case_and_however_often() -> None:
    passed = inward(
        (b"connection", b"close, X-Secret ,,"),
        (b"x-secret", b"1"),
        (b"connection", b"x-other"),
        (b"x-other", b"2"),
        (b"x-kept", b"3"),
    )
    assert names(passed)[0] == "x-kept"
    assert not {"connection", "x-secret", "x-other"} & set(names(passed))


@pytest.mark.parametrize(
    "name", [b"x-mesh-caller", b"x-mesh-attempt", b"x-mesh-anything", b"x_mesh_caller", b"user_id", b"content_length"]
)
def test_a_client_cannot_forge_what_services_believe(name: bytes) -> None:
    assert name.decode() not in names(inward((name, b"1")))


def test_a_stranger_is_not_believed_about_who_is_behind_it() -> None:
    passed = inward(
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"evil"),
        (b"x-forwarded-prefix", b"/evil"),
        (b"forwarded", b"for=1.2.3.4"),
        (b"x-real-ip", b"1.2.3.4"),
    )
    assert passed == [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
    ]


def test_connection_cannot_take_away_what_we_say_of_the_client() -> None:
    assert ("x-forwarded-for", "203.0.113.9") in inward((b"connection", b"x-forwarded-for"))


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1"])
def test_a_trusted_proxy_is_believed_and_added_to_the_chain(address: str) -> None:
    passed = inward(
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"shop.example"),
        client=Client(address, "http", b"internal"),
    )
    assert passed == [
        ("x-forwarded-for", f"1.2.3.4, {address}"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
    ]


def test_what_a_trusted_proxy_leaves_unsaid_is_said_of_itself() -> None:
    assert inward(client=Client("10.0.0.1", "https", b"shop.example")) == [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
    ]


@pytest.mark.parametrize("address", [None, "", "/run/gateway.sock"])
def test_a_peer_without_an_address_is_not_trusted(address: str | None) -> None:
    passed = inward((b"x-forwarded-for", b"1.2.3.4"), client=Client(address, "http", None))
    assert "1.2.3.4" not in dict(passed)["x-forwarded-for"]


def test_values_in_utf8_survive_and_others_are_no_error() -> None:
    passed = dict(inward((b"x-a", "é".encode()), (b"x-b", b"\xe9")))
    assert passed["x-a"].encode() == "é".encode()
    assert passed["x-b"] == "é"


def test_made_up_names_do_not_fill_the_memory() -> None:
    inward(*((b"x-%d" % n, b"1") for n in range(5000)))
    assert len(headers._memo) <= headers._MEMO_LIMIT


def test_response_headers_pass_in_order_with_their_duplicates_in_lower_case() -> None:
    given = [(b"Set-Cookie", b"a=1"), (b"X-A", b"1"), (b"Set-Cookie", b"b=2"), (b"Content-Length", b"3")]
    assert headers.outward(given, 200) == [(name.lower(), value) for name, value in given]


def test_what_belongs_to_the_services_connection_stays_behind() -> None:
    given = [
        (b"Connection", b"close, X-Internal"), (b"X-Internal", b"1"), (b"Keep-Alive", b"5"), (b"Upgrade", b"h2c"),
        (b"Transfer-Encoding", b"chunked"), (b"Trailer", b"x"), (b"Proxy-Authenticate", b"Basic"), (b"TE", b"x"),
        (b"Date", b"x"), (b"Server", b"x"), (b"X-Kept", b"1"),
    ]  # fmt: skip
    assert headers.outward(given, 200) == [(b"x-kept", b"1")]


@pytest.mark.parametrize("name", [b"X-Mesh-Draining", b"x-mesh-unprocessed", b"x-mesh-instance", b"X-MESH-Anything"])
def test_what_peers_tell_each_other_stays_inside(name: bytes) -> None:
    assert headers.outward([(name, b"1"), (b"X-Kept", b"1")], 200) == [(b"x-kept", b"1")]


def test_an_answer_without_content_has_no_length() -> None:
    assert headers.outward([(b"Content-Length", b"0")], 204) == []
    assert headers.outward([(b"Content-Length", b"9")], 304) == [(b"content-length", b"9")]
