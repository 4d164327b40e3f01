from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from app.data import Database
from app.errors import InvalidInput, NotFound, Unavailable
from app.services.identity import accounts, admin, housekeeping, models
from app.services.identity.account_store import AccountStore
from app.services.identity.accounts import Account, AccountExists, Lockout, LoginFailed
from app.services.identity.housekeeping import Housekeeping, Policy
from app.services.identity.journal import Audit, Entry
from app.services.identity.passwords import CHEAP, Argon2
from tests.services.conftest import Migrate
from tests.services.identity.browser import PASSWORD, add_account

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
POLICY = Lockout()
CHEAPLY = Argon2(CHEAP)


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("identity")


@pytest.fixture
def store(database: Database) -> AccountStore:
    return AccountStore(database)


@pytest.fixture
async def ada(database: Database) -> Account:
    return await add_account(database)


async def guess(store: AccountStore, password: str, now: datetime = NOW) -> str:
    """Why it failed, or "in"."""
    try:
        await accounts.log_in("ada", password, store, CHEAPLY, policy=POLICY, now=now)
    except LoginFailed as error:
        return error.why
    return "in"


async def failures(database: Database) -> int:
    async with database.reading() as session:
        return int(await session.scalar(select(models.accounts.c.failures)) or 0)


async def test_an_account_is_found_as_it_was_added(database: Database, store: AccountStore) -> None:
    added = await admin.add_account(
        database, " Zoë ", "eight of them", name="Zoë 🫖", email="zoe@example.com", roles=["admin", "ops"],
        subject="9", parameters=CHEAP,
    )  # fmt: skip
    assert (added.username, added.subject, added.roles) == ("zoë", "9", ("admin", "ops"))
    for found in (
        await store.find(added.id),
        await store.find_by_username("zoë"),
        await store.find_by_subject("9"),
    ):
        assert found == added
    assert await store.find(added.id + 1) is None
    (entry,) = await store.events()
    assert (entry.event, entry.subject, entry.detail) == ("account_created", "9", "roles: admin ops")


async def test_names_and_subjects_belong_to_one_account(database: Database, ada: Account) -> None:
    with pytest.raises(AccountExists):
        await add_account(database, "ADA")
    with pytest.raises(AccountExists):
        await add_account(database, "bob", subject=ada.subject)


@pytest.mark.parametrize(
    "wrong",
    [
        {"username": " "},
        {"username": "a\0"},
        {"username": "x" * 101},
        {"name": ""},
        {"email": "ada"},
        {"roles": ["a b"]},
        {"subject": ""},
        {"subject": "x" * 65},
        {"password": "short"},
    ],
)
async def test_what_no_account_may_have_is_refused(database: Database, wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"username": "bob", "password": PASSWORD, **wrong}
    with pytest.raises(InvalidInput):
        await admin.add_account(database, given.pop("username"), given.pop("password"), parameters=CHEAP, **given)


async def test_five_wrong_passwords_lock_even_the_right_one_out_for_a_second(store: AccountStore, ada: Account) -> None:
    assert [await guess(store, "wrong") for _ in range(6)] == ["wrong"] * 5 + ["locked"]
    assert await guess(store, PASSWORD) == "locked"
    assert await guess(store, PASSWORD, NOW + SECOND - timedelta(microseconds=1)) == "locked"
    assert await guess(store, PASSWORD, NOW + SECOND) == "in"


async def test_each_further_failure_doubles_the_pause(store: AccountStore, ada: Account) -> None:
    moment = NOW
    for _ in range(5):
        await guess(store, "wrong", moment)
    for pause in (1, 2, 4, 8):
        assert await guess(store, PASSWORD, moment + timedelta(seconds=pause) * 0.99) == "locked"
        moment += timedelta(seconds=pause)
        assert await guess(store, "wrong", moment) == "wrong"


async def test_the_right_password_starts_the_count_anew(database: Database, store: AccountStore, ada: Account) -> None:
    for _ in range(3):
        assert [await guess(store, "wrong") for _ in range(4)] == ["wrong"] * 4
        assert await guess(store, PASSWORD) == "in"
    assert await failures(database) == 0


async def test_guesses_at_the_same_time_do_not_outrun_the_lock(
    database: Database, store: AccountStore, ada: Account
) -> None:
    said = await asyncio.gather(*(guess(store, f"guess {n}") for n in range(25)))
    assert (said.count("wrong"), said.count("locked")) == (5, 20)
    assert await failures(database) == 5


async def test_an_unknown_name_has_no_attempt(store: AccountStore, ada: Account) -> None:
    assert await store.attempt("nobody", POLICY, NOW) is None


async def test_a_hash_is_replaced_unless_the_password_was_changed_meanwhile(
    database: Database, store: AccountStore, ada: Account
) -> None:
    before = await store.attempt("ada", POLICY, NOW)
    assert before is not None
    await admin.set_password(database, "Ada", "another one", parameters=CHEAP)
    await store.replace_hash(ada.id, old=before.password_hash, new="stale")
    assert await guess(store, "another one") == "in"


async def test_another_password_unlocks_and_ends_every_session(
    database: Database, store: AccountStore, ada: Account
) -> None:
    for _ in range(5):
        await guess(store, "wrong")
    await open_session(store, "d1", ada)
    await open_session(store, "d2", ada)
    assert sorted(await admin.set_password(database, "ada", "another one", parameters=CHEAP)) == ["d1", "d2"]
    assert await store.find_session("d1", NOW) is None
    assert await guess(store, "another one") == "in"
    with pytest.raises(NotFound):
        await admin.set_password(database, "nobody", "another one", parameters=CHEAP)


async def open_session(store: AccountStore, digest: str, account: Account, replaces: str | None = None) -> None:
    await store.open_session(digest, account.id, auth_time=NOW, expires_at=NOW + HOUR, replaces=replaces)


async def test_a_session_lasts_until_it_expires_or_is_closed(store: AccountStore, ada: Account) -> None:
    await open_session(store, "digest", ada)
    found = await store.find_session("digest", NOW)
    assert found == accounts.Session("digest", ada, NOW, NOW + HOUR)
    assert await store.find_session("digest", NOW + HOUR) is None
    assert await store.find_session("another", NOW) is None
    assert await store.close_session("digest")
    assert not await store.close_session("digest")
    assert await store.find_session("digest", NOW) is None


async def test_a_disabled_account_has_no_session(database: Database, store: AccountStore, ada: Account) -> None:
    await open_session(store, "digest", ada)
    async with database.session() as session:
        await session.execute(update(models.accounts).values(disabled=True))
    assert await store.find_session("digest", NOW) is None
    assert await guess(store, PASSWORD) == "disabled"


async def test_what_a_session_began_belongs_to_the_one_that_replaces_it(
    database: Database, store: AccountStore, ada: Account
) -> None:
    await open_session(store, "old", ada)
    async with database.session() as session:
        await session.execute(insert(models.families).values(family("mine", ada, session_digest="old")))
        await session.execute(insert(models.families).values(family("other", ada, session_digest="elsewhere")))
    await open_session(store, "new", ada, replaces="old")
    assert await store.find_session("old", NOW) is None
    async with database.reading() as session:
        rows = await session.execute(select(models.families.c.sid, models.families.c.session_digest))
        assert {row.sid: row.session_digest for row in rows} == {"mine": "new", "other": "elsewhere"}


async def test_what_a_session_began_and_nobody_fetched_comes_to_nothing(
    database: Database, store: AccountStore, ada: Account
) -> None:
    async with database.session() as session:
        for name, changed in (
            ("waiting", {"session_digest": "mine"}),
            ("used", {"session_digest": "mine", "used_at": NOW}),
            ("other", {"session_digest": "elsewhere"}),
        ):
            await session.execute(insert(models.codes).values(code(name, ada, **changed)))
        for name, digest, state in (
            ("allowed", "mine", "approved"),
            ("fetched", "mine", "used"),
            ("x", "o", "approved"),
        ):
            row = device_code(name, session_digest=digest, state=state)
            await session.execute(insert(models.device_codes).values(row))
    await store.abandon("mine")
    async with database.reading() as session:
        assert set(await session.scalars(select(models.codes.c.digest))) == {"used", "other"}
        devices = await session.execute(select(models.device_codes.c.digest, models.device_codes.c.state))
        assert {row.digest: row.state for row in devices} == {"allowed": "denied", "fetched": "used", "x": "approved"}


async def test_consents_add_up_by_client(store: AccountStore, ada: Account) -> None:
    assert await store.consented(ada.id, "shop") == frozenset()
    await store.consent(ada.id, "shop", ["openid", "email"], NOW)
    await store.consent(ada.id, "shop", ["openid", "orders:read"], NOW)
    assert await store.consented(ada.id, "shop") == {"openid", "email", "orders:read"}
    assert await store.consented(ada.id, "bank") == frozenset()


async def test_consents_at_the_same_time_are_all_remembered(store: AccountStore, ada: Account) -> None:
    await asyncio.gather(*(store.consent(ada.id, "shop", [f"scope{n}"], NOW) for n in range(3)))
    assert await store.consented(ada.id, "shop") == {"scope0", "scope1", "scope2"}


async def test_the_audit_log_keeps_what_happened_and_no_secret(store: AccountStore) -> None:
    audit = Audit(store, clock=lambda: NOW)
    await audit.record("login_failed", address="10.0.0.1", detail="token=abcdef " + "x" * 600)
    await audit.record("login", subject="7\0", client_id="c" * 100)
    login, failed = await store.events()
    assert login == Entry(NOW, "login", subject="7", client_id="c" * 64)
    assert failed.detail is not None
    assert (len(failed.detail), "abcdef" in failed.detail) == (500, False)
    assert await store.events(limit=1) == [login]


def code(digest: str, account: Account, **changed: Any) -> dict[str, Any]:
    return {
        "digest": digest, "sid": digest, "client_id": "shop", "account_id": account.id, "redirect_uri": "", "scope": "",
        "audience": "", "challenge": "", "auth_time": NOW, "expires_at": NOW + HOUR, **changed,
    }  # fmt: skip


def device_code(digest: str, **changed: Any) -> dict[str, Any]:
    return {
        "digest": digest, "user_code": digest, "client_id": "shop", "scope": "", "audience": "", "state": "pending",
        "interval_seconds": 5, "expires_at": NOW + HOUR, **changed,
    }  # fmt: skip


def family(sid: str, account: Account, **changed: Any) -> dict[str, Any]:
    return {
        "sid": sid, "client_id": "shop", "account_id": account.id, "scope": "", "audience": "mesh",
        "auth_time": NOW, "created_at": NOW, "expires_at": NOW + HOUR, **changed,
    }  # fmt: skip


async def rows(database: Database, *tables: Any) -> list[int]:
    async with database.reading() as session:
        return [int(await session.scalar(select(func.count()).select_from(table)) or 0) for table in tables]


async def test_what_has_expired_is_removed_and_the_rest_stays(
    database: Database, store: AccountStore, ada: Account
) -> None:
    long_ago = NOW - timedelta(days=2)
    async with database.session() as session:
        for name, moment in (("gone", long_ago), ("late", NOW - HOUR), ("fresh", NOW + HOUR)):
            await session.execute(insert(models.codes).values(code(name, ada, expires_at=moment)))
            await session.execute(insert(models.device_codes).values(device_code(name, expires_at=moment)))
            await session.execute(insert(models.assertions).values(digest=name, expires_at=moment))
            await session.execute(insert(models.families).values(family(name, ada, expires_at=moment)))
            await session.execute(
                insert(models.refresh_tokens).values(digest=name, sid=name, created_at=long_ago, expires_at=moment)
            )
            session_row = {"digest": name, "account_id": ada.id, "auth_time": long_ago, "expires_at": moment}
            await session.execute(insert(models.sessions).values(session_row))
        await session.execute(insert(models.audit).values(at=NOW - timedelta(days=91), event="login"))
        await session.execute(insert(models.audit).values(at=NOW - timedelta(days=89), event="login"))
        await session.execute(models.audit.delete().where(models.audit.c.event == "account_created"))

    ticks = iter([0.0, 61.0, 61.0, 62.0])
    house = Housekeeping(Policy(), clock=lambda: next(ticks))
    # Of codes and families one day's worth is remembered, of sessions nothing; the refresh token goes with its family.
    assert await house.run_if_due(store, now=NOW, keep_audit=timedelta(days=90)) == 2 + 1 + 1 + 1 + 1 + 1
    counted = await rows(
        database, models.sessions, models.codes, models.device_codes, models.assertions, models.families,
        models.refresh_tokens, models.audit,
    )  # fmt: skip
    assert counted == [1, 2, 2, 2, 2, 2, 1]
    assert await house.run_if_due(store, now=NOW + timedelta(days=9), keep_audit=timedelta(days=90)) == 0


async def test_a_run_removes_a_batch_and_the_next_one_goes_on(
    database: Database, store: AccountStore, ada: Account
) -> None:
    for n in range(5):
        await open_session(store, f"d{n}", ada)
    ticks = iter(range(0, 1000, 100))
    house = Housekeeping(Policy(batch=2), clock=lambda: float(next(ticks)))
    later, keep = NOW + 2 * HOUR, timedelta(days=90)
    assert [await house.run_if_due(store, now=later, keep_audit=keep) for _ in range(4)] == [2, 2, 1, 0]


async def test_housekeeping_waits_where_the_database_does_not_answer() -> None:
    class Away:
        async def purge(self, *_: Any, **__: Any) -> int:
            raise Unavailable("away")

    house = Housekeeping(Policy(interval_seconds=0.0))
    assert await house.run_if_due(Away(), now=NOW, keep_audit=HOUR) == 0


def test_what_is_due_is_a_plain_list() -> None:
    tasks = housekeeping.due(NOW, Policy(), keep_audit=timedelta(days=90))
    assert {task.table.name for task in tasks} >= {"identity_sessions", "identity_codes", "identity_audit"}
    assert all(task.before <= NOW for task in tasks)
