"""From a person's browser to tokens, and to the end of both."""

from __future__ import annotations

from typing import Any

from tests.services.conftest import Running
from tests.services.identity.browser import CALLBACK, LOGGED_OUT, Browser, Page, request_of

# RFC 7636, appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


async def token(running: Running, status: int, body: dict[str, str]) -> Any:
    answer = await running.client.post("/oauth/token", data={"client_id": "shop", **body})
    assert answer.status_code == status, answer.text
    return answer.json()


async def tokens_of(running: Running, page: Page) -> Any:
    code = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    return await token(running, 200, {**code, "code": page.query["code"]})


async def allowed(browser: Browser, **changed: str) -> Page:
    return await browser.submit(await browser.open(request_of(**changed)), "allow")


async def test_a_logout_ends_the_tokens_of_the_login(running: Running, browser: Browser) -> None:
    await browser.log_in()
    granted = await tokens_of(running, await allowed(browser, scope="openid profile orders:read"))
    assert set(granted) >= {"access_token", "refresh_token", "id_token"}
    page = await browser.open(
        f"/oauth/logout?id_token_hint={granted['id_token']}&post_logout_redirect_uri={LOGGED_OUT}&state=s"
    )
    assert page.url == f"{LOGGED_OUT}?state=s"
    assert browser.session is None
    refresh = {"grant_type": "refresh_token", "refresh_token": granted["refresh_token"]}
    assert (await token(running, 400, refresh))["error"] == "invalid_grant"


async def test_a_code_that_was_not_fetched_before_the_logout_is_worth_nothing(
    running: Running, browser: Browser
) -> None:
    await browser.log_in()
    page = await allowed(browser)
    await browser.submit(await browser.open("/account"), "logout")
    code = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    assert (await token(running, 400, {**code, "code": page.query["code"]}))["error"] == "invalid_grant"


async def test_an_access_token_is_no_hint_for_a_logout(running: Running, browser: Browser) -> None:
    await browser.log_in()
    granted = await tokens_of(running, await allowed(browser))
    page = await browser.open(f"/oauth/logout?id_token_hint={granted['access_token']}")
    assert page.title == "Log out?"


async def test_a_device_gets_its_tokens_once_somebody_has_allowed_it(running: Running, browser: Browser) -> None:
    answer = await running.client.post("/oauth/device", data={"client_id": "shop", "scope": "openid orders:read"})
    told = answer.json()
    assert told["verification_uri"].endswith("/account/device")
    poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": told["device_code"]}
    await browser.log_in()
    page = await browser.submit(await browser.open("/account/device"), user_code=told["user_code"].lower())
    assert page.title == "Connect The Shop?"
    assert (await browser.submit(page, "allow")).title == "Device connected"
    assert "access_token" in await token(running, 200, poll)
