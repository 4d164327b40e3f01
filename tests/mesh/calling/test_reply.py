from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from app.errors import BadReply, MeshError, Unavailable
from app.mesh.calling.reply import Reply, ReplyHeaders


def headers(*pairs: tuple[str, str]) -> ReplyHeaders:
    return ReplyHeaders(CIMultiDictProxy(CIMultiDict(pairs)))


def test_headers_are_lower_case_when_listed_and_found_in_any_case() -> None:
    received = headers(("Content-Type", "a"), ("X-One", "1"))
    assert dict(received) == {"content-type": "a", "x-one": "1"}
    assert (received["CONTENT-TYPE"], received.get("x-one"), received.get("x-two")) == ("a", "1", None)
    assert len(received) == 2


def test_duplicate_headers_are_joined() -> None:
    assert dict(headers(("Vary", "a"), ("X", "1"), ("vary", "b"))) == {"vary": "a, b", "x": "1"}


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_ok(status: int) -> None:
    assert Reply(status).ok
    assert not Reply(status + 100).ok


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"<html>"])
def test_a_body_that_is_not_json_is_a_bad_reply(body: bytes) -> None:
    with pytest.raises(BadReply, match="users"):
        Reply(200, body=body, service="users").json()


def test_an_expected_status_is_passed_on() -> None:
    reply = Reply(404)
    assert reply.expect(200, 404) is reply


def test_an_unexpected_503_is_unavailable_with_the_peers_retry_after() -> None:
    with pytest.raises(Unavailable) as raised:
        Reply(503, {"retry-after": "7"}).expect(200)
    assert (raised.value.retry_after, isinstance(raised.value, MeshError)) == (7.0, False)


@pytest.mark.parametrize("value", ["", "soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 400, "٣"])
def test_a_retry_after_that_is_no_number_of_seconds_is_none(value: str) -> None:
    assert Reply(503, {"retry-after": value}).retry_after_seconds is None


@pytest.mark.parametrize("status", [200, 400, 404, 500, 502, 504])
def test_any_other_unexpected_status_is_a_bad_reply(status: int) -> None:
    with pytest.raises(BadReply, match=f"users answered {status}, not 201 or 202"):
        Reply(status, service="users").expect(201, 202)
