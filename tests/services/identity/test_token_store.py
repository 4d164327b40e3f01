"""What may happen once happens once, on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.data import Database
from app.services.identity.account_store import AccountStore
from app.services.identity.authorization import Code, DeviceCode, Family, NewRefresh, Refresh, judge
from app.services.identity.client import Client, digest
from app.services.identity.client_store import ClientStore
from app.services.identity.token_store import TokenStore

NOW = datetime(2026, 11, 28, 12, 0, 0, 123456, tzinfo=UTC)
HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
SESSION = "5" * 64


@pytest.fixture
def store(database: Database) -> TokenStore:
    return TokenStore(database)


@pytest.fixture
async def account(database: Database) -> int:
    added = await AccountStore(database).add(
        subject="7",
        username="user7",
        name="User7",
        email="user7@example.com",
        password_hash="-",
        roles=("a", "b"),
        created_at=NOW,
    )
    assert await AccountStore(database).find(added.id) == added
    assert await AccountStore(database).find_by_subject("7") == added
    assert await AccountStore(database).find_by_subject("8") is None
    return added.id


def code(account: int, name: str = "code") -> Code:
    return Code(
        digest(name), f"family of {name}", "web", account, SESSION, "https://a.example/cb", "orders:read", "mesh", "n",
        "c" * 43, NOW, NOW + timedelta(minutes=1),
    )  # fmt: skip


def refresh(name: str, created_at: datetime = NOW) -> NewRefresh:
    return NewRefresh(digest(name), created_at, created_at + MONTH)


async def begin(store: TokenStore, account: int, name: str = "code") -> Family:
    """A family, whose refresh token is called "first of" its name."""
    this = code(account, name)
    await store.add_code(this)
    family = this.found(NOW, NOW + MONTH)
    assert await store.redeem(this, family, refresh(f"first of {name}"))
    return family


async def rotate(store: TokenStore, old: str, new: str, now: datetime = NOW) -> str:
    return await store.rotate(digest(old), refresh(new, now), now=now, grace_seconds=10)


async def test_a_code_is_found_as_it_was_added(store: TokenStore, account: int) -> None:
    await store.add_code(code(account))
    assert await store.find_code(digest("code")) == code(account)
    assert await store.find_code(digest("another")) is None


async def test_a_code_founds_one_family(store: TokenStore, account: int) -> None:
    await store.add_code(code(account))
    families = [replace(code(account).found(NOW, NOW + MONTH), sid=f"s{n}") for n in range(8)]
    won = await asyncio.gather(
        *(store.redeem(code(account), family, refresh(family.sid)) for family in families)
    )  # fmt: skip
    assert won.count(True) == 1
    winner = families[won.index(True)]
    for family in families:
        assert await store.find_family(family.sid) == (family if family is winner else None)
        assert (await store.find_refresh(digest(family.sid)) is not None) == (family is winner)
    used = await store.find_code(digest("code"))
    assert used is not None
    assert used.used_at == NOW


async def test_of_many_refreshes_at_once_one_is_fresh_and_all_are_served(store: TokenStore, account: int) -> None:
    await begin(store, account)
    verdicts = await asyncio.gather(*(rotate(store, "first of code", f"second {n}") for n in range(8)))
    assert sorted(verdicts) == ["fresh", *["retried"] * 7]
    assert all([await store.find_refresh(digest(f"second {n}")) for n in range(8)])


async def test_a_refresh_moves_the_end_of_its_family(store: TokenStore, account: int) -> None:
    family = await begin(store, account)
    later = NOW + timedelta(days=7)
    assert await rotate(store, "first of code", "second", later) == "fresh"
    assert await store.find_family(family.sid) == replace(family, expires_at=later + MONTH)


async def test_what_comes_too_late_changes_nothing(store: TokenStore, account: int) -> None:
    family = await begin(store, account)
    assert await rotate(store, "nonsense", "new") == "unknown"
    assert await rotate(store, "first of code", "new", NOW + MONTH) == "unknown"
    assert await rotate(store, "first of code", "second") == "fresh"
    assert await rotate(store, "first of code", "new", NOW + timedelta(seconds=10.1)) == "reused"
    assert await store.revoke(family.sid, "reused", now=NOW)
    assert await rotate(store, "second", "new") == "unknown"
    assert await store.find_refresh(digest("new")) is None


async def test_a_family_ends_once(store: TokenStore, account: int) -> None:
    family = await begin(store, account)
    ended = await asyncio.gather(*(store.revoke(family.sid, "logout", now=NOW) for _ in range(5)))
    assert ended.count(True) == 1
    assert await store.find_family(family.sid) == replace(family, revoked_at=NOW)
    assert not await store.revoke("nonsense", "logout", now=NOW)


async def test_a_logout_ends_what_came_from_the_login(store: TokenStore, account: int) -> None:
    first, second = await begin(store, account, "a"), await begin(store, account, "b")
    await store.revoke(first.sid, "revoked", now=NOW - HOUR)
    assert await store.revoke_of_session(SESSION, "logout", now=NOW) == [second.sid]
    assert await store.revoke_of_session(SESSION, "logout", now=NOW) == []
    assert await store.revoke_of_account(account, "disabled", now=NOW) == []
    assert await store.recently_revoked(NOW - timedelta(minutes=11)) == [(second.sid, NOW)]


def device(name: str, user_code: str = "ABCDEFGH") -> DeviceCode:
    return DeviceCode(
        digest(name), user_code, "device", "orders:read", "mesh", "pending", None, None, None, 5, None, NOW + HOUR
    )


async def decide(store: TokenStore, account: int, now: datetime = NOW) -> bool:
    return await store.decide(
        "ABCDEFGH", "approved", account_id=account, session_digest=SESSION, auth_time=NOW, now=now
    )  # fmt: skip


async def test_a_device_is_decided_on_once_and_served_once(store: TokenStore, account: int) -> None:
    assert await store.add_device_code(device("d"))
    assert not await store.add_device_code(device("another"))
    assert await store.find_user_code("ABCDEFGH", NOW) == device("d")
    assert await store.find_user_code("ABCDEFGH", NOW + HOUR) is None
    families = [replace(code(account).found(NOW, NOW + HOUR), sid=f"s{n}") for n in range(6)]
    assert not await store.redeem_device_code(digest("d"), families[0], None)
    assert not await decide(store, account, NOW + HOUR)
    assert (await asyncio.gather(*(decide(store, account) for _ in range(5)))).count(True) == 1
    assert await store.find_user_code("ABCDEFGH", NOW) is None
    won = await asyncio.gather(*(store.redeem_device_code(digest("d"), family, None) for family in families))
    assert won.count(True) == 1
    found = await store.find_device_code(digest("d"))
    assert found == replace(
        device("d"), state="used", account_id=account, session_digest=SESSION, auth_time=NOW
    )  # fmt: skip


async def test_a_device_that_polls_too_soon_waits_for_longer(store: TokenStore) -> None:
    await store.add_device_code(device("d"))
    assert await store.poll(device("d"), now=NOW)
    assert not await store.poll(device("d"), now=NOW + timedelta(seconds=4))
    slower = await store.find_device_code(digest("d"))
    assert slower is not None
    assert slower.interval_seconds == 10
    assert not await store.poll(slower, now=NOW + timedelta(seconds=13))
    assert await store.poll(replace(slower, interval_seconds=15), now=NOW + timedelta(seconds=28))


async def test_an_assertion_is_used_once(database: Database) -> None:
    clients = ClientStore(database)
    used = await asyncio.gather(*(clients.use_assertion(digest("jti"), expires_at=NOW) for _ in range(8)))
    assert used.count(True) == 1


async def test_a_client_is_found_as_it_was_added(database: Database) -> None:
    clients = ClientStore(database)
    client = Client(
        "Web", "Wéb", "none", ("authorization_code",), ("openid",), ("mesh",), ("https://a.example/cb",), trusted=True
    )
    assert await clients.add(client, now=NOW)
    assert not await clients.add(replace(client, name="Another"), now=NOW)
    assert await clients.find("Web") == client
    # Names are compared byte by byte.
    assert await clients.find("web") is None
    assert await clients.rotate_secret("Web", digest("one"), until=NOW)
    assert await clients.rotate_secret("Web", digest("two"), until=NOW + HOUR)
    rotated = replace(
        client, secret_digest=digest("two"), old_secret_digest=digest("one"), old_secret_until=NOW + HOUR
    )  # fmt: skip
    assert await clients.find("Web") == rotated
    await clients.renew_demo(replace(client, secret_digest=digest("three"), scopes=("users:admin",)))
    assert await clients.find("Web") == rotated


@pytest.mark.parametrize(
    ("used_at", "revoked_at", "seconds", "verdict"),
    [
        (None, None, 0, "fresh"),
        (None, None, MONTH.total_seconds(), "unknown"),
        (None, NOW, 0, "unknown"),
        (NOW, None, 10, "retried"),
        (NOW, None, 10.1, "reused"),
        (NOW, NOW, 0, "unknown"),
        (NOW, None, MONTH.total_seconds() + 1, "reused"),
    ],
)
def test_what_it_means_that_a_refresh_token_comes(
    used_at: datetime | None, revoked_at: datetime | None, seconds: float, verdict: str
) -> None:
    family = replace(code(1).found(NOW, NOW + MONTH), revoked_at=revoked_at)
    found = Refresh(digest("x"), NOW + MONTH, used_at, family)
    assert judge(found, NOW + timedelta(seconds=seconds), grace_seconds=10) == verdict
