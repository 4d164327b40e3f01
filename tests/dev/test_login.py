"""Tokens as a client gets them, from a small issuer that keeps to the contract, or does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.dev import login, ports
from app.dev.browser import Browser, Page, forms
from app.dev.login import Refused
from app.errors import BadReply, InvalidInput, Unavailable
from tests.dev import issuer as issuers
from tests.dev.issuer import CLIENTS, PASSWORDS, Issuer

SECRET = CLIENTS["demo-client"]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuers.running() as issuer:
        yield issuer


def log_in(issuer: Issuer, password: str = PASSWORDS["user7"], **wish: str) -> str:
    return login.user_token(issuer.url, "user7", password, **wish)


# ------------------------------------------------------------------------------------------------------- a user's


def test_a_user_logs_in_as_in_a_browser_and_a_token_comes_of_it(issuer: Issuer) -> None:
    assert log_in(issuer, scope="users:read orders:write") == "token-for-users:read orders:write"
    assert issuer.pages == [
        "/oauth/authorize",
        "/account/login",
        "/account/login",
        "/oauth/authorize",
        "/oauth/token",
    ]


def test_without_a_scope_the_issuer_decides(issuer: Issuer) -> None:
    assert log_in(issuer) == "token-for-everything"


def test_the_audience_is_asked_for_where_the_user_is(issuer: Issuer) -> None:
    issuer.answer = {"error": "invalid_target"}
    with pytest.raises(InvalidInput, match="invalid_target"):
        log_in(issuer, audience="inventory")
    assert [asked["audience"] for asked in issuer.codes.values()] == ["inventory"]


def test_each_login_has_secrets_of_its_own(issuer: Issuer) -> None:
    log_in(issuer)
    log_in(issuer)
    first, second = issuer.token_requests
    assert first["code_verifier"] != second["code_verifier"]
    assert len(first["code_verifier"]) >= 43


def test_a_wrong_password_is_tried_once_and_said_in_one_line(issuer: Issuer) -> None:
    with pytest.raises(Refused, match="the password of user7 is wrong") as refused:
        log_in(issuer, "hunter2")
    assert issuer.passwords == ["hunter2"]
    assert "hunter2" not in refused.value.detail


def test_a_scope_that_there_is_not_makes_no_sense(issuer: Issuer) -> None:
    with pytest.raises(InvalidInput) as refused:
        log_in(issuer, scope="users:fly")
    # What a server says goes to a terminal: nothing of it may steer that.
    assert refused.value.detail == "The issuer gives no token: invalid_scope (No such scope [31m)"
    assert issuer.passwords == []


def test_a_password_is_never_sent_elsewhere(issuer: Issuer) -> None:
    with issuers.running() as thief:
        issuer.action = f"{thief.url}/account/login"
        with pytest.raises(BadReply, match="sends us elsewhere"):
            log_in(issuer)
        assert thief.pages == []


@pytest.mark.parametrize("answer", [{"state": "another"}, {"iss": "http://127.0.0.1:1"}])
def test_an_answer_that_is_not_to_our_question_is_not_believed(issuer: Issuer, answer: dict[str, str]) -> None:
    issuer.answer = answer
    with pytest.raises(BadReply, match="not the issuer's, or not to ours"):
        log_in(issuer)
    assert issuer.token_requests == []


def test_a_page_that_asks_for_consent_is_not_answered_by_us(issuer: Issuer) -> None:
    issuer.asks_consent = True
    with pytest.raises(BadReply, match="something else than a login"):
        log_in(issuer)


def test_pages_without_end_have_one(issuer: Issuer) -> None:
    issuer.runs_in_circles = True
    with pytest.raises(BadReply, match="from page to page"):
        log_in(issuer)


def test_an_unknown_client_is_said_so(issuer: Issuer) -> None:
    with pytest.raises(Refused, match="invalid_request"):
        login.user_token(issuer.url, "user7", "x", client_id="another")


# ------------------------------------------------------------------------------------------------------ a client's


def test_a_client_proves_itself_with_its_secret(issuer: Issuer) -> None:
    assert login.client_token(issuer.url, "demo-client", SECRET, scope="users:read") == "token-of-demo-client"
    assert issuer.token_requests == [{"grant_type": "client_credentials", "scope": "users:read"}]


@pytest.mark.parametrize(
    ("wish", "error", "said"),
    [
        ({"scope": "users:fly"}, InvalidInput, r"invalid_scope \(No such scope\)"),
        ({"audience": "nobody"}, InvalidInput, "invalid_target"),
    ],
)
def test_what_it_may_not_have_makes_no_sense(
    issuer: Issuer, wish: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        login.client_token(issuer.url, "demo-client", SECRET, **wish)


def test_a_wrong_secret_is_refused_and_does_not_show(issuer: Issuer) -> None:
    with pytest.raises(Refused) as refused:
        login.client_token(issuer.url, "demo-client", "hunter2")
    assert refused.value.detail == "The issuer gives no token: invalid_client"


def test_where_nobody_answers_is_said(issuer: Issuer) -> None:
    nowhere = f"http://127.0.0.1:{ports.any_free()}"
    with pytest.raises(Unavailable, match=f"{nowhere} does not answer"):
        login.client_token(nowhere, "demo-client", SECRET)
    with pytest.raises(Unavailable, match=f"{nowhere} does not answer"):
        login.user_token(nowhere, "user7", "x")


def test_an_issuer_that_is_none_is_said(issuer: Issuer) -> None:
    with pytest.raises(Refused, match="/elsewhere/oauth/token answers 404"):
        login.client_token(f"{issuer.url}/elsewhere", "demo-client", SECRET)
    with pytest.raises(Refused, match="answers 404"):
        login.user_token(f"{issuer.url}/elsewhere", "user7", "x")


def test_no_proxy_sees_a_password(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    with issuers.running() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert log_in(issuer)
        assert proxy.pages == []


# --------------------------------------------------------------------------------------------------------- forms


def forms_in(html: str, url: str = "http://h/a/b?c") -> list[tuple[str, str, dict[str, str]]]:
    return [(form.action, form.method, dict(form.fields)) for form in forms(Page(url, 200, html.encode()))]


def test_a_form_without_an_action_goes_to_its_own_page() -> None:
    assert forms_in("<form><input name=x></form>") == [("http://h/a/b?c", "get", {"x": ""})]


def test_actions_are_relative_to_the_page() -> None:
    assert [form[0] for form in forms_in("<form action=d><form action='/e?f=1&amp;g=2'>")] == [
        "http://h/a/d",
        "http://h/e?f=1&g=2",
    ]


def test_what_a_browser_would_not_send_is_left_out() -> None:
    html = """<input name=outside><form><input value=nameless><input name=off disabled value=1>
        <input type=submit name=go value=1><input type=radio name=r value=1><input type=radio name=r value=2 checked>
        <INPUT TYPE=hidden NAME=token VALUE="a&quot;b"></form><input name=after>"""
    assert [form[2] for form in forms_in(html)] == [{"r": "2", "token": 'a"b'}]


def test_a_browser_does_not_follow_by_itself(issuer: Issuer) -> None:
    page = Browser().get(f"{issuer.url}/account/login?next=/")
    assert page.status == 200
    assert page.location is None
    answered = Browser().get(
        f"{issuer.url}/oauth/authorize?client_id=demo-web&code_challenge_method=S256&redirect_uri=x&state=y"
    )
    assert answered.status == 302
    assert answered.location is not None
    assert answered.location.startswith(f"{issuer.url}/account/login?next=")
