from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet
from sqlalchemy import insert, select

from app.services.identity import key_store, models
from app.services.identity.accounts import session_digest
from tests.services.conftest import Running
from tests.services.identity.browser import LOGGED_OUT, PASSWORD, Browser

KEY = ECKey.generate_key("P-256", parameters={"kid": "ours"})
OTHER_KEY = ECKey.generate_key("P-256", parameters={"kid": "ours"})
ISSUER = "http://127.0.0.1:8000"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    async def published() -> dict[str, Any]:
        return dict(KeySet([KEY]).as_dict(private=False))

    monkeypatch.setattr(key_store, "published", published)


def hint(key: ECKey = KEY, **changed: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "7", "aud": "shop", "iat": now - 900, "exp": now - 300, **changed}
    return jwt.encode({"alg": "ES256", "kid": "ours"}, claims, key)


def logout(**parameters: str) -> str:
    return f"/oauth/logout?{urlencode(parameters)}" if parameters else "/oauth/logout"


async def is_logged_in(browser: Browser) -> bool:
    return (await browser.open("/account")).path == "/account"


async def test_a_client_with_our_token_logs_the_person_out_at_once(browser: Browser) -> None:
    await browser.log_in()
    asked = logout(id_token_hint=hint(), post_logout_redirect_uri=LOGGED_OUT, state="s t")
    page = await browser.open(asked)
    assert page.url == f"{LOGGED_OUT}?state=s+t"
    assert not await is_logged_in(browser)
    # Once more, now that nobody is logged in: back to the client all the same.
    assert (await browser.open(asked)).url == f"{LOGGED_OUT}?state=s+t"


async def test_without_a_token_of_ours_the_person_is_asked(browser: Browser) -> None:
    await browser.log_in()
    page = await browser.open(logout(client_id="shop", post_logout_redirect_uri=LOGGED_OUT, state="s"))
    assert page.title == "Log out?"
    assert "The Shop" in page.text
    assert await is_logged_in(browser)
    assert "form-action 'self' https://client.example;" in page.answer.headers["content-security-policy"]
    assert (await browser.submit(page, "stay")).path == "/account"
    assert await is_logged_in(browser)
    assert (await browser.submit(page, "logout")).url == f"{LOGGED_OUT}?state=s"
    assert not await is_logged_in(browser)


PROVE_NOTHING = {
    "signature": {"id_token_hint": hint(OTHER_KEY)},
    "nonsense": {"id_token_hint": "nonsense"},
    "another client": {"id_token_hint": hint(), "client_id": "another"},
    "another issuer": {"id_token_hint": hint(iss="https://elsewhere.example")},
    "another person": {"id_token_hint": hint(sub="8")},
    "an access token": {"id_token_hint": hint(aud="mesh")},
    "none": {},
}


async def test_a_hint_that_proves_nothing_ends_nothing(browser: Browser, subtests: pytest.Subtests) -> None:
    await browser.log_in()
    for name, wrong in PROVE_NOTHING.items():
        with subtests.test(name):
            assert (await browser.open(logout(**wrong))).title == "Log out?"
            assert await is_logged_in(browser)


@pytest.mark.parametrize(
    "uri", ["https://evil.example/", f"{LOGGED_OUT}/", f"{LOGGED_OUT}?x=1", "//client.example/bye", "/account"]
)
async def test_only_a_registered_address_is_gone_to(browser: Browser, uri: str) -> None:
    await browser.log_in()
    page = await browser.open(logout(id_token_hint=hint(), client_id="shop", post_logout_redirect_uri=uri))
    assert page.title == "You are logged out"
    assert page.url.startswith(browser.home)


async def test_a_stranger_is_not_sent_on(browser: Browser) -> None:
    page = await browser.open(logout(client_id="shop", post_logout_redirect_uri=LOGGED_OUT))
    assert page.title == "You are logged out"


async def test_a_logout_by_post_becomes_one_by_get(browser: Browser) -> None:
    await browser.log_in()
    answer = await browser.client.post("/oauth/logout", data={"client_id": "shop", "state": "s"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/oauth/logout?client_id=shop&state=s")


async def test_logging_out_revokes_what_this_login_began_and_nothing_else(running: Running, browser: Browser) -> None:
    await browser.log_in()
    assert browser.session is not None
    now = datetime.now(UTC)
    row = {
        "client_id": "shop", "account_id": 1, "scope": "", "audience": "mesh", "auth_time": now, "created_at": now,
        "expires_at": now + timedelta(hours=1),
    }  # fmt: skip
    async with running.database.session() as session:
        for sid, digest in (("mine", session_digest(browser.session)), ("other", "d" * 64), ("device", None)):
            await session.execute(insert(models.families).values(sid=sid, session_digest=digest, **row))
    # A second login in the same browser inherits what the first one began.
    await browser.log_in(password=PASSWORD)
    await browser.submit(await browser.open("/account"), "logout")
    async with running.database.reading() as session:
        revoked = await session.execute(select(models.families.c.sid, models.families.c.reason))
        assert {row.sid: row.reason for row in revoked} == {"mine": "logout", "other": None, "device": None}
