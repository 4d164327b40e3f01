from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select, update

from app.services.identity import models
from app.services.identity.account_store import AccountStore
from app.services.identity.housekeeping import Housekeeping, Policy
from app.services.identity.pages import blueprint, limits
from tests.services.conftest import Running, Start
from tests.services.identity.browser import PASSWORD, Browser, Page, add_account, request_of


@pytest.fixture
async def another(running: Running) -> AsyncIterator[Browser]:
    browser = Browser(running)
    yield browser
    await browser.client.aclose()


async def events(running: Running) -> list[tuple[str, str | None, str | None]]:
    return [(e.event, e.subject, e.detail) for e in reversed(await AccountStore(running.database).events())]


async def test_who_is_not_logged_in_is_asked_to_and_then_sees_the_account(browser: Browser) -> None:
    page = await browser.open("/account")
    assert (page.path, page.title, page.status) == ("/account/login", "Log in", 200)
    page = await browser.submit(page, username="Ada", password=PASSWORD)
    assert (page.path, page.title) == ("/account", "Your account")
    for told in ("Ada Lovelace", "ada@example.com", "admin"):
        assert told in page.text


async def test_logging_out_ends_the_session_here_and_in_the_browser(browser: Browser) -> None:
    await browser.log_in()
    kept = browser.session
    page = await browser.submit(await browser.open("/account"), "logout")
    assert page.title == "You are logged out"
    assert browser.session is None
    stolen = await browser.client.get("/account", headers={"cookie": f"mesh-session={kept}"})
    assert stolen.headers["location"] == "/account/login"


async def test_the_answer_never_tells_what_was_wrong(running: Running, browser: Browser) -> None:
    await add_account(running.database, "gone")
    async with running.database.session() as session:
        await session.execute(update(models.accounts).where(models.accounts.c.username == "gone").values(disabled=True))
    told = set()
    for username, password in [("ada", "wrong"), ("nobody", PASSWORD), ("gone", PASSWORD), ("a" * 99, "x"), ("", "")]:
        page = await browser.log_in(username, password)
        told.add((page.status, page.title, page.alert, tuple(sorted(page.answer.headers.keys()))))
        assert browser.session is None
        assert page.form.fields["username"] == username
        assert page.form.fields["password"] == ""
    assert len(told) == 1
    (status, title, alert, _) = told.pop()
    assert (status, title) == (403, "Log in")
    assert "wrong" in alert


async def test_wrong_passwords_lock_the_account_for_a_while(running: Running, browser: Browser) -> None:
    wrong = [await browser.log_in(password="wrong") for _ in range(6)]
    assert "locked for a while" in wrong[-1].alert
    assert (await browser.log_in()).alert == wrong[0].alert
    happened = await events(running)
    assert [detail for event, _, detail in happened if event == "login_failed"] == ["wrong"] * 5 + ["locked"] * 2
    assert [subject for event, subject, _ in happened if event == "locked"] == ["7"]
    async with running.database.session() as session:
        past = select(models.accounts.c.created_at).where(models.accounts.c.username == "ada").scalar_subquery()
        await session.execute(update(models.accounts).values(locked_until=past))
    assert (await browser.log_in()).path == "/account"


async def test_guesses_at_the_same_time_look_at_five_passwords(running: Running, browser: Browser) -> None:
    page = await browser.open("/account/login")
    data = {**page.form.fields, "username": "ada"}
    guesses = [browser.client.post("/account/login", data={**data, "password": f"guess {n}"}) for n in range(15)]
    assert {answer.status_code for answer in await asyncio.gather(*guesses)} == {403}
    said = [detail for event, _, detail in await events(running) if event == "login_failed"]
    assert (said.count("wrong"), said.count("locked")) == (5, 10)


async def test_one_address_may_try_so_often_whatever_the_names(browser: Browser) -> None:
    allowed = int(limits.LOGINS.tokens)
    pages = [await browser.log_in(f"name{n}") for n in range(allowed + 1)]
    assert {page.status for page in pages[:allowed]} == {403}
    last = pages[-1]
    assert last.status == 429
    assert "<title>Error: Log in" in last.text
    assert "Too many attempts" in last.alert
    assert int(last.answer.headers["retry-after"]) >= 1
    assert (await browser.log_in()).status == 429
    # Somebody else, whom the gateway tells apart, is not concerned.
    elsewhere = {"x-forwarded-for": "203.0.113.9"}
    form = await browser.open("/account/login")
    data = {**form.form.fields, "username": "ada", "password": PASSWORD}
    assert (await browser.client.post("/account/login", data=data, headers=elsewhere)).status_code == 303


async def test_the_log_of_a_failed_login_does_not_hold_what_was_typed(running: Running, browser: Browser) -> None:
    await browser.log_in("my password by mistake", "hunter2")
    await browser.log_in()
    assert (await events(running))[1:] == [("login_failed", None, "unknown"), ("login", "7", None)]
    (login, *_) = await AccountStore(running.database).events()
    assert login.address == "127.0.0.1"
    assert login.request_id


# ------------------------------------------------------------------------------------------ forged forms


async def test_a_form_of_another_site_is_refused(browser: Browser) -> None:
    await browser.log_in()
    for path, data in (
        ("/account/login", {"username": "ada", "password": PASSWORD}),
        ("/oauth/logout", {"decision": "logout"}),
        (request_of(), {"decision": "allow"}),
        ("/account/device", {"user_code": "WDJBMJHT", "decision": "allow"}),
    ):
        for token in ({}, {"form_token": ""}, {"form_token": "0" * 64}, {"form_token": "ü"}):
            answer = await browser.client.post(path, data={**data, **token})
            assert answer.status_code == 403, path
            assert "This form is no longer valid" in answer.text
    assert (await browser.open("/account")).path == "/account"


async def test_a_form_token_of_another_browser_is_worth_nothing(browser: Browser, another: Browser) -> None:
    await browser.log_in()
    await another.log_in()
    theirs = (await another.open("/account")).form.fields
    answer = await browser.client.post("/oauth/logout", data={**theirs, "decision": "logout"})
    assert answer.status_code == 403
    # Nor is the one of the login form, which anybody can fetch.
    await another.client.aclose()
    fresh = await browser.client.get("/account/login", headers={"cookie": ""})
    token = fresh.text.split('name="form_token" value="')[1][:64]
    assert (await browser.client.post("/oauth/logout", data={"form_token": token, "decision": "x"})).status_code == 403


async def test_a_login_form_needs_the_browser_that_it_was_sent_to(browser: Browser, another: Browser) -> None:
    theirs = (await another.open("/account/login")).form.fields
    data = {**theirs, "username": "ada", "password": PASSWORD}
    assert (await browser.client.post("/account/login", data=data)).status_code == 403
    await browser.open("/account/login")
    assert (await browser.client.post("/account/login", data=data)).status_code == 403
    assert browser.session is None


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 303), ("none", 303), ("cross-site", 403), ("same-site", 403)]
)
async def test_what_the_browser_says_of_the_origin_counts_as_well(browser: Browser, site: str, status: int) -> None:
    page = await browser.open("/account/login")
    data = {**page.form.fields, "username": "ada", "password": PASSWORD}
    answer = await browser.client.post("/account/login", data=data, headers={"sec-fetch-site": site})
    assert answer.status_code == status


async def test_the_token_of_a_session_is_never_taken_from_the_request(browser: Browser) -> None:
    fixed = "A" * 43
    browser.client.cookies.set("mesh-session", fixed, domain="127.0.0.1")
    await browser.log_in()
    (session,) = {cookie.value for cookie in browser.client.cookies.jar if cookie.name == "mesh-session"} - {fixed}
    assert session
    assert (await browser.client.get("/account", headers={"cookie": f"mesh-session={fixed}"})).status_code == 303


async def test_each_login_has_a_token_of_its_own_and_ends_the_one_before(browser: Browser) -> None:
    await browser.log_in()
    first = browser.session
    await browser.log_in()
    assert browser.session not in (None, first)
    answer = await browser.client.get("/account", headers={"cookie": f"mesh-session={first}"})
    assert answer.headers["location"] == "/account/login"


async def test_who_logs_in_in_the_place_of_another_ends_their_session(running: Running, browser: Browser) -> None:
    await add_account(running.database, "bob", name="Bob")
    await browser.log_in()
    assert "Bob" in (await browser.log_in("bob")).text
    assert [event for event, *_ in await events(running)][-3:] == ["login", "logout", "login"]


# --------------------------------------------------------------------------------------------- redirects


OUTSIDE = [
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/account/../../evil",
    "/account/%2e%2e/evil",
    "/account//evil.example",
    "/accounts",
    "/account.evil.example",
    "/oauthx",
    "/users/7",
    "javascript:alert(1)",
    "/account\r\nX-Evil: 1",
    "/account?\r\nX-Evil: 1",
    "/account#fragment",
    " /account",
    "/account@evil.example",
    "/account?" + "x" * 9000,
    "",
]


async def test_a_login_leads_nowhere_but_to_our_own_pages(browser: Browser, subtests: pytest.Subtests) -> None:
    for following in OUTSIDE:
        with subtests.test(following=following[:50]):
            browser.client.cookies.clear()
            page = await browser.open("/account/login", params={"next": following[:500]})
            if len(following) < 500:
                assert page.form.fields["next"] == "/account"
            data = {**page.form.fields, "next": following, "username": "ada", "password": PASSWORD}
            answer = await browser.client.post("/account/login", data=data)
            assert (answer.status_code, answer.headers["location"]) == (303, "/account")
            assert "x-evil" not in answer.headers


@pytest.mark.parametrize("following", ["/account", "/account/device?user_code=WDJB-MJHT", "/oauth/logout"])
async def test_a_login_leads_on_to_where_it_was_asked_for(browser: Browser, following: str) -> None:
    page = await browser.open("/account/login", params={"next": following})
    data = {**page.form.fields, "username": "ada", "password": PASSWORD}
    assert (await browser.client.post("/account/login", data=data)).headers["location"] == following


# ----------------------------------------------------------------------------------------- what is in a page


XSS = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.mark.parametrize("path", ["/account/login", "/account/device"])
async def test_what_others_write_is_text_in_our_pages(browser: Browser, path: str) -> None:
    await browser.log_in()
    params = {"next": f"/account?x={XSS}", "user_code": XSS, "username": XSS}
    assert "<script" not in (await browser.open(path, params=params)).text
    page = await browser.log_in(XSS, XSS)
    assert page.form.fields["username"] == XSS
    assert "<script" not in page.text
    assert "onerror" not in str(page.reader.tags)


def strict(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_every_answer_has_strict_headers(browser: Browser) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/account", {}),
        ("GET", "/account/login", {}),
        ("POST", "/account/login", {"data": {"username": "x"}}),
        ("GET", "/account/device", {}),
        ("GET", "/oauth/logout", {}),
        ("POST", "/oauth/logout", {}),
        ("GET", request_of(), {}),
        ("GET", "/oauth/authorize", {}),
    ]
    for login in (False, True):
        for method, path, options in asked:
            strict(await browser.client.request(method, path, **options))
        if not login:
            await browser.log_in()


async def test_the_style_is_the_one_that_the_policy_allows(browser: Browser) -> None:
    page = await browser.open("/account/login")
    style = page.text.split("<style>")[1].split("</style>")[0]
    assert b64encode(sha256(style.encode()).digest()).decode() in page.answer.headers["content-security-policy"]
    assert "style=" not in page.text


async def test_pages_can_be_read_by_anybody(browser: Browser) -> None:
    await browser.log_in("nobody")
    pages = [await browser.log_in("nobody"), await browser.log_in(), await browser.open("/account/device")]
    pages += [await browser.open("/oauth/logout"), await browser.open(request_of())]
    assert [page.title for page in pages] == [
        "Log in",
        "Your account",
        "Connect a device",
        "Log out?",
        "Allow The Shop?",
    ]
    for page in pages:
        assert '<html lang="en">' in page.text
        assert 'name="viewport"' in page.text
        assert {"header", "main", "h1", "title"} <= set(page.reader.tags)
        assert page.reader.tags.count("h1") == 1
        assert "script" not in page.reader.tags
        assert set(page.form.unlabelled) <= page.reader.labels


async def test_cookies_are_out_of_reach_for_scripts_and_for_other_sites(running: Running, browser: Browser) -> None:
    page = await browser.client.get("/account/login")
    visit = page.headers["set-cookie"]
    assert visit.startswith("mesh-visit=")
    data = {**(await browser.open("/account/login")).form.fields, "username": "ada", "password": PASSWORD}
    answer = await browser.client.post("/account/login", data=data)
    (session,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith("mesh-session=")]
    for cookie in (visit, session):
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        assert "Secure" not in cookie


async def test_behind_https_cookies_are_secure_and_of_this_host_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_AUTH__ISSUER", "https://mesh.example/sso")
    running = await start("identity")
    await add_account(running.database)
    page = await running.client.get("/account/login")
    visit = page.headers["set-cookie"]
    assert visit.startswith("__Host-mesh-visit=")
    data = {**Page(str(page.url), page).form.fields, "username": "ada", "password": PASSWORD}
    assert '/sso/account/login"' in page.text
    sent = {"cookie": visit.split(";")[0]}
    answer = await running.client.post("/account/login", data=data, headers=sent)
    assert answer.headers["location"] == "/sso/account"
    (session,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-mesh-session=")]
    for cookie in (visit, session):
        assert "; Secure" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
    # One without the prefix may have been set by anybody of the domain.
    bare = {"cookie": session.split(";")[0].removeprefix("__Host-")}
    assert (await running.client.get("/account", headers=bare)).status_code == 303


async def test_a_form_of_one_replica_may_be_sent_to_another(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_IDENTITY__KEY_SECRET", "a secret of all replicas")
    one, another = await start("identity"), await start("identity")
    await add_account(one.database)
    page = await one.client.get("/account/login")
    data = {**Page(str(page.url), page).form.fields, "username": "ada", "password": PASSWORD}
    sent = {"cookie": page.headers["set-cookie"].split(";")[0]}
    assert (await another.client.post("/account/login", data=data, headers=sent)).status_code == 303


async def test_requests_sweep_out_what_has_expired_and_probes_do_not(
    running: Running, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blueprint, "_housekeeping", Housekeeping(Policy(interval_seconds=0.0)))
    past = datetime.now(UTC) - timedelta(seconds=1)
    row = {"digest": "d" * 64, "account_id": 1, "auth_time": past, "expires_at": past}
    async with running.database.session() as session:
        await session.execute(insert(models.sessions).values(row))

    async def sessions() -> int:
        async with running.database.reading() as session:
            return int(await session.scalar(select(func.count()).select_from(models.sessions)) or 0)

    await running.get("/livez")
    await running.client.get("/metrics")
    assert await sessions() == 1
    await browser.open("/account/login")
    assert await sessions() == 0


async def test_an_unknown_path_below_ours_is_no_page(running: Running) -> None:
    await running.get("/account/nothing", 404)
    await running.ask("DELETE", "/account/login", 405)
