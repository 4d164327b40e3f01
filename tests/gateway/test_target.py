from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import BadInput
from app.gateway import target


def scope(raw: bytes, *, query: bytes = b"", method: str = "GET") -> dict[str, Any]:
    return {"method": method, "path": unquote(raw.decode("latin-1")), "raw_path": raw, "query_string": query}


@pytest.mark.parametrize(
    "raw",
    [
        b"/", b"//evil.example/x", b"/users/../x", b"/users/%2e%2e/x", b"/users/a%2Fb", b"/users/%00", b"/users/%zz",
        b"/users/%C3%A9", b"/users;v=1/a:b@c", b"/users/\\..\\x", b'/users/{x}|^`<>"', b"/" + b"x" * 10_000,
    ],
)  # fmt: skip
def test_a_path_goes_on_byte_for_byte(raw: bytes) -> None:
    assert target.read(scope(raw, query=b"a=%20b&c=+&&")).wire == raw.decode() + "?a=%20b&c=+&&"


def test_the_decoded_path_decides_the_route() -> None:
    assert target.read(scope(b"/%75sers/7")).path == "/users/7"


def test_without_a_query_no_question_mark_is_added() -> None:
    assert target.read(scope(b"/users")).wire == "/users"


@pytest.mark.parametrize(
    ("raw", "wire", "authority"),
    [
        (b"http://evil.example/users/%37", "/users/%37", b"evil.example"),
        (b"HTTPS://evil.example:1234//x", "//x", b"evil.example:1234"),
        (b"http://evil.example", "/", b"evil.example"),
    ],
)
def test_of_an_absolute_target_only_the_path_is_followed(raw: bytes, wire: str, authority: bytes) -> None:
    read = target.read(scope(raw))
    assert (read.wire, read.authority) == (wire, authority)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"*", b"users", b"evil.example:443", b"ftp://evil.example/x", b"http://", b"http:///x", b"http:/x",
        b"http://user@evil.example/x", b"/a b", b"/a\r\nX: y", b"/a\x00", b"/\xc3\xa9", b"/a#b", b"/a\x7f",
        b"http://evil.example/a b", b"javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_cannot_stand_in_a_request_line_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput):
        target.read(scope(raw) | ({"path": ""} if not raw else {}))


@pytest.mark.parametrize("query", [b"a b", b"a\r\n", b"\xff", b"a#b", b"\x00"])
def test_a_query_that_cannot_stand_in_a_request_line_is_refused(query: bytes) -> None:
    with pytest.raises(BadInput):
        target.read(scope(b"/users", query=query))


@pytest.mark.parametrize("method", ["CONNECT", "", "GE T", "GET\r\n", "G\x00T", "ГЕТ", "GET/1"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(BadInput):
        target.read(scope(b"/users", method=method))


@pytest.mark.parametrize("method", ["GET", "QUERY", "M-SEARCH"])
def test_any_other_method_is_the_services_to_judge(method: str) -> None:
    assert target.read(scope(b"/users", method=method)).wire == "/users"


def test_a_server_that_gives_no_raw_path_is_served_too() -> None:
    assert target.read({"method": "GET", "path": "/users/é %", "query_string": b""}).wire == "/users/%C3%A9%20%25"


@given(st.binary(max_size=40), st.binary(max_size=20))
@example(b"/users\n", b"")
@example(b"/users", b"a\n")
def test_whatever_is_sent_becomes_one_line_or_a_refusal(raw: bytes, query: bytes) -> None:
    try:
        wire = target.read(scope(raw or b"/", query=query)).wire
    except BadInput:
        return
    assert wire.startswith("/")
    assert wire.isascii()
    assert wire.isprintable()
    assert " " not in wire
    assert "#" not in wire
