from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.data import Database
from app.services.identity import models
from app.services.identity.account_store import AccountStore
from app.services.identity.pages import asking, scopes
from tests.services.conftest import Running
from tests.services.identity.browser import CALLBACK, PASSWORD, Browser, add_client, request_of

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def came_back(url: str) -> bool:
    return url.startswith(f"{CALLBACK}?")


async def age_session(database: Database, by: timedelta) -> None:
    async with database.session() as session:
        await session.execute(update(models.sessions).values(auth_time=datetime.now(UTC) - by))


async def test_the_whole_way_from_the_client_and_back(running: Running, browser: Browser) -> None:
    page = await browser.open(request_of())
    assert page.title == "Log in"
    page = await browser.submit(page, username="ada", password=PASSWORD)
    assert page.title == "Allow The Shop?"
    for told in ("Ada Lovelace", "Know who you are", "See orders", CALLBACK):
        assert told in page.text
    page = await browser.submit(page, "allow")
    assert came_back(page.url)
    assert page.query["code"]
    assert page.query["state"] == "a state"
    logged = [(e.event, e.client_id, e.detail) for e in await AccountStore(running.database).events()]
    assert ("consent", "shop", "openid orders:read") in logged


async def test_who_denies_sends_the_client_an_error(browser: Browser) -> None:
    await browser.log_in()
    page = await browser.submit(await browser.open(request_of()), "deny")
    assert came_back(page.url)
    assert (page.query["error"], page.query["state"]) == ("access_denied", "a state")
    assert (await browser.open(request_of())).title == "Allow The Shop?"


async def test_what_was_allowed_once_is_not_asked_again_and_more_is(browser: Browser) -> None:
    await browser.log_in()
    await browser.submit(await browser.open(request_of()), "allow")
    assert came_back((await browser.open(request_of())).url)
    assert came_back((await browser.open(request_of(scope="openid"))).url)
    assert (await browser.open(request_of(scope="openid email"))).title == "Allow The Shop?"
    assert (await browser.open(request_of(prompt="consent"))).title == "Allow The Shop?"


async def test_nobody_is_asked_about_one_of_our_own(running: Running, browser: Browser) -> None:
    await add_client(running.database, "own", trusted=True)
    page = await browser.open(request_of(client_id="own"))
    page = await browser.submit(page, username="ada", password=PASSWORD)
    assert came_back(page.url)


async def test_prompt_none_never_shows_a_page(browser: Browser) -> None:
    page = await browser.open(request_of(prompt="none"))
    assert came_back(page.url)
    assert (page.query["error"], page.query["state"]) == ("login_required", "a state")
    await browser.log_in()
    page = await browser.open(request_of(prompt="none"))
    assert (page.query["error"], page.query["iss"]) == ("consent_required", "http://127.0.0.1:8000")
    await browser.submit(await browser.open(request_of()), "allow")
    assert "code" in (await browser.open(request_of(prompt="none"))).query


async def test_prompt_login_asks_even_who_is_logged_in_and_once_only(running: Running, browser: Browser) -> None:
    await add_client(running.database, "own", trusted=True)
    await browser.log_in()
    page = await browser.open(request_of(client_id="own", prompt="login"))
    assert page.title == "Log in"
    page = await browser.submit(page, username="ada", password=PASSWORD)
    assert "code" in page.query
    assert (await browser.open(request_of(client_id="own", prompt="login"))).title == "Log in"


async def test_max_age_asks_who_has_been_logged_in_for_longer(running: Running, browser: Browser) -> None:
    await add_client(running.database, "own", trusted=True)
    await browser.log_in()
    assert "code" in (await browser.open(request_of(client_id="own", max_age="60"))).query
    await age_session(running.database, timedelta(minutes=2))
    assert "code" in (await browser.open(request_of(client_id="own", max_age="180"))).query
    assert (await browser.open(request_of(client_id="own", max_age="60", prompt="none"))).query[
        "error"
    ] == "login_required"
    page = await browser.open(request_of(client_id="own", max_age="60"))
    assert page.title == "Log in"
    assert "code" in (await browser.submit(page, username="ada", password=PASSWORD)).query


async def test_a_request_by_post_becomes_one_by_get(browser: Browser) -> None:
    await browser.log_in()
    path, _, query = request_of().partition("?")
    answer = await browser.client.post(
        path, content=query, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 303
    assert (await browser.open(answer.headers["location"])).title == "Allow The Shop?"


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "nobody"},
        {"client_id": "\0"},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": f"{CALLBACK}/more"},
        {"redirect_uri": "https://client.example@evil.example/callback"},
    ],
)
async def test_nobody_is_sent_to_an_address_that_is_not_the_clients(browser: Browser, wrong: dict[str, str]) -> None:
    page = await browser.open(request_of(**wrong))
    assert page.url.startswith(browser.home)
    assert page.status in (400, 401)
    await browser.log_in()
    page = await browser.open(request_of(**wrong))
    assert page.url.startswith(browser.home)
    # Nor may the login page's form lead there.
    following = request_of(**wrong)
    login = await browser.open("/account/login", params={"next": following})
    assert "form-action 'self';" in login.answer.headers["content-security-policy"]


async def test_forms_may_lead_back_to_the_client_and_nowhere_else(browser: Browser) -> None:
    login = await browser.open(request_of())
    assert "form-action 'self' https://client.example;" in login.answer.headers["content-security-policy"]
    consent = await browser.submit(login, username="ada", password=PASSWORD)
    assert "form-action 'self' https://client.example;" in consent.answer.headers["content-security-policy"]


async def test_a_client_with_a_wicked_name_is_text(running: Running, browser: Browser) -> None:
    name = "<script>alert(1)</script><b onclick='x'>Bank"
    await add_client(running.database, "evil", name=name, scope="openid")
    await browser.log_in()
    page = await browser.open(request_of(client_id="evil", scope="openid", state='"><script>alert(1)</script>'))
    assert page.title == f"Allow {name}?"
    assert "script" not in page.reader.tags
    assert "b" not in page.reader.tags
    page = await browser.submit(page, "allow")
    assert page.query["state"] == '"><script>alert(1)</script>'


async def test_a_decision_of_who_is_logged_out_meanwhile_is_none(running: Running, browser: Browser) -> None:
    await browser.log_in()
    page = await browser.open(request_of())
    async with running.database.session() as session:
        await session.execute(models.sessions.delete())
    answer = await browser.submit(page, "allow")
    assert answer.status == 403
    assert await AccountStore(running.database).consented(1, "shop") == frozenset()


# ------------------------------------------------------------------------------------------------- the rules


def needed(auth_time: datetime | None, *prompt: str, max_age: int | None = None, since: datetime | None = None) -> bool:
    return asking.login_needed(auth_time, prompt=frozenset(prompt), max_age=max_age, since=since, now=NOW)


def test_when_a_login_is_asked_for() -> None:
    assert needed(None)
    assert not needed(NOW - MINUTE)
    assert needed(NOW - MINUTE, "login")
    assert needed(NOW - MINUTE, "select_account", "consent")
    assert not needed(NOW - MINUTE, "login", since=NOW - MINUTE)
    assert needed(NOW - 2 * MINUTE, "login", since=NOW - MINUTE)
    assert not needed(NOW - MINUTE, max_age=60)
    assert needed(NOW - MINUTE, max_age=59)
    assert needed(NOW - MINUTE, max_age=0)
    assert not needed(NOW - MINUTE, max_age=0, since=NOW - MINUTE)
    assert needed(None, since=NOW - MINUTE)


def test_when_consent_is_asked_for() -> None:
    def asked(*prompt: str, trusted: bool = False, given: frozenset[str] = frozenset()) -> bool:
        return asking.consent_needed(("openid", "email"), trusted=trusted, given=given, prompt=prompt)

    assert asked()
    assert asked(given=frozenset({"openid"}))
    assert not asked(given=frozenset({"openid", "email", "profile"}))
    assert not asked(trusted=True)
    assert asked("consent", trusted=True, given=frozenset({"openid", "email"}))


@pytest.mark.parametrize("value", [None, "", "soon", "-1", "1" * 11, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_moment_that_is_none_is_ignored(value: str | None) -> None:
    assert asking.since_of(value) is None


def test_the_moment_of_the_question_replaces_the_one_before() -> None:
    query = asking.with_since("a=1&a=&login_since=5&b=%26", NOW)
    assert query == f"a=1&a=&b=%26&login_since={int(NOW.timestamp())}"
    assert asking.since_of(str(int(NOW.timestamp()))) == NOW


def test_scopes_are_told_in_plain_words() -> None:
    assert scopes.in_words(["openid", "orders:write", "new:scope"]) == [
        "Know who you are",
        "Place and cancel orders",
        "new:scope",
    ]
