from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select

from app.services.identity import models
from app.services.identity.account_store import AccountStore
from app.services.identity.pages import device, limits
from tests.services.conftest import Running
from tests.services.identity.browser import PASSWORD, Browser

CODE = "WDJBMJHT"


@pytest.fixture
async def waiting(running: Running) -> Running:
    """A device waits for its code to be entered."""
    row = {
        "digest": "d" * 64, "user_code": CODE, "client_id": "shop", "scope": "openid orders:read", "audience": "mesh",
        "state": "pending", "interval_seconds": 5, "expires_at": datetime.now(UTC) + timedelta(minutes=10),
    }  # fmt: skip
    async with running.database.session() as session:
        await session.execute(insert(models.device_codes).values(row))
    return running


async def state(running: Running) -> Any:
    async with running.database.reading() as session:
        return (await session.execute(select(models.device_codes))).one()


@pytest.mark.parametrize(("button", "title", "becomes", "event"), [
    ("allow", "Device connected", "approved", "device_approved"),
    ("deny", "Device refused", "denied", "device_denied"),
])  # fmt: skip
async def test_a_device_is_answered_by_who_enters_its_code(
    waiting: Running, browser: Browser, button: str, title: str, becomes: str, event: str
) -> None:
    page = await browser.open("/account/device")
    assert page.title == "Log in"
    page = await browser.submit(page, username="ada", password=PASSWORD)
    assert page.title == "Connect a device"
    page = await browser.submit(page, user_code=" wdjb-mjht ")
    assert page.title == "Connect The Shop?"
    for told in ("WDJB-MJHT", "See orders"):
        assert told in page.text
    assert (await browser.submit(page, button)).title == title
    row = await state(waiting)
    assert row.state == becomes
    assert (await AccountStore(waiting.database).events())[0].event == event


async def test_a_code_in_the_address_is_filled_in_and_not_more(waiting: Running, browser: Browser) -> None:
    page = await browser.open("/account/device?user_code=wdjb-mjht")
    page = await browser.submit(page, username="ada", password=PASSWORD)
    assert page.title == "Connect a device"
    assert page.form.fields["user_code"] == "WDJB-MJHT"
    assert (await state(waiting)).state == "pending"


async def test_an_unknown_code_is_refused_and_the_form_is_there_again(waiting: Running, browser: Browser) -> None:
    await browser.log_in()
    page = await browser.submit(await browser.open("/account/device"), user_code="<b>nothing")
    assert (page.status, page.title) == (422, "Connect a device")
    assert "not known" in page.alert
    assert "b" not in page.reader.tags
    # A decision about a code that is not there is none.
    page = await browser.open("/account/device")
    answer = await browser.client.post(
        "/account/device", data={**page.form.fields, "user_code": "X", "decision": "allow"}
    )
    assert answer.status_code == 422


async def test_a_device_is_answered_once(waiting: Running, browser: Browser) -> None:
    await browser.log_in()
    confirm = await browser.submit(await browser.open("/account/device"), user_code=CODE)
    await browser.submit(confirm, "deny")
    assert (await browser.submit(confirm, "allow")).status == 422
    assert (await state(waiting)).state == "denied"


async def test_codes_are_not_to_be_guessed(waiting: Running, browser: Browser) -> None:
    await browser.log_in()
    form = await browser.open("/account/device")
    allowed = int(limits.USER_CODES.tokens)
    pages = [await browser.submit(form, user_code=f"GUESS{n}") for n in range(allowed + 1)]
    assert [page.status for page in pages] == [422] * allowed + [429]
    assert "Too many attempts" in pages[-1].text
    assert int(pages[-1].answer.headers["retry-after"]) >= 1
    confirm = {**form.form.fields, "user_code": CODE, "decision": "allow"}
    assert (await browser.client.post("/account/device", data=confirm)).status_code == 429
    assert (await state(waiting)).state == "pending"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("wdjb-mjht", CODE), (" WDJB MJHT\n", CODE), ("W.D.J.B", "WDJB"), ("ü", ""), ("x" * 99, "X" * 16), ("", "")],
)
def test_a_code_is_read_as_people_type_it(typed: str, meant: str) -> None:
    assert device.normal(typed) == meant
