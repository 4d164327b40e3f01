"""Identity's routes, asked by two people: no route takes anybody's id, and each person gets what is their own.

A route without a line here is a failure: somebody has to say by what it knows who asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.services.conftest import Running
from tests.services.identity.browser import CALLBACK, Browser, Page, add_account, request_of

# RFC 7636, appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

KNOWN_BY = {
    "/oauth/token": "the client's proof, and a code, a refresh token or a device code of its own",
    "/oauth/revoke": "the client's proof; tokens of its own",
    "/oauth/introspect": "the client's proof; tokens that it may know of",
    "/oauth/device": "the client's proof",
    "/oauth/register": "nobody: off, unless the settings say otherwise",
    "/oauth/userinfo": "the access token of the person",
    "/oauth/authorize": "the session",
    "/oauth/logout": "the session, or an ID token of the person",
    "/account": "the session",
    "/account/login": "the password",
    "/account/device": "the session, and the user code",
    "/oauth/jwks": "everybody",
    "/.well-known/oauth-authorization-server": "everybody",
    "/.well-known/openid-configuration": "everybody",
}


@pytest.fixture
async def bob(running: Running) -> AsyncIterator[Browser]:
    await add_account(running.database, "bob", name="Bob", email="bob@example.com", subject="8")
    browser = Browser(running)
    yield browser
    await browser.client.aclose()


async def tokens(running: Running, page: Page) -> Any:
    form = {
        "client_id": "shop", "grant_type": "authorization_code", "code": page.query["code"],
        "redirect_uri": CALLBACK, "code_verifier": VERIFIER,
    }  # fmt: skip
    answer = await running.client.post("/oauth/token", data=form)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_route_is_accounted_for(running: Running) -> None:
    app = running.process.flask
    ours = {
        rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.split(".")[0] not in ("health", "management")
    }
    assert ours == set(KNOWN_BY)
    # Whose things a request is about is never said by its path.
    assert not [rule for rule in ours if "<" in rule]


async def test_two_people_see_their_own_account(running: Running, browser: Browser, bob: Browser) -> None:
    await browser.log_in()
    await bob.log_in("bob")
    hers, his = await browser.open("/account"), await bob.open("/account")
    assert ("ada@example.com" in hers.text, "bob@example.com" in hers.text) == (True, False)
    assert ("ada@example.com" in his.text, "bob@example.com" in his.text) == (False, True)


async def test_what_one_has_allowed_the_other_is_still_asked(running: Running, browser: Browser, bob: Browser) -> None:
    await browser.log_in()
    await bob.log_in("bob")
    await browser.submit(await browser.open(request_of()), "allow")
    assert "code" in (await browser.open(request_of())).query
    assert (await bob.open(request_of())).title == "Allow The Shop?"


async def test_a_persons_tokens_speak_of_that_person(running: Running, browser: Browser, bob: Browser) -> None:
    found = {}
    for name, visitor in (("ada", browser), ("bob", bob)):
        await visitor.log_in(name)
        page = await visitor.open(request_of(scope="openid email orders:read", prompt="consent"))
        token = (await tokens(running, await visitor.submit(page, "allow")))["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        found[name] = (await running.client.get("/oauth/userinfo", headers=headers)).json()
    assert [found[name]["sub"] for name in ("ada", "bob")] == ["7", "8"]
    assert [found[name]["email"] for name in ("ada", "bob")] == ["ada@example.com", "bob@example.com"]


async def test_a_logout_of_one_leaves_the_other_logged_in(running: Running, browser: Browser, bob: Browser) -> None:
    await browser.log_in()
    await bob.log_in("bob")
    await browser.submit(await browser.open("/oauth/logout"), "logout")
    assert (await browser.open("/account")).path == "/account/login"
    assert (await bob.open("/account")).path == "/account"


async def test_a_session_is_of_no_use_with_anothers_form(running: Running, browser: Browser, bob: Browser) -> None:
    await browser.log_in()
    await bob.log_in("bob")
    stolen = (await browser.open("/oauth/logout")).form
    answer = await bob.client.post(stolen.action, data={**stolen.fields, "decision": "logout"})
    assert answer.status_code == 403
    assert (await bob.open("/account")).path == "/account"
