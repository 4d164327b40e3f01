from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app import settings
from app.data import Database
from app.errors import PreconditionFailed
from app.services.users import demo, logic
from app.services.users.logic import EmailTaken, User
from app.services.users.repository import UserRepository
from tests.services.conftest import Migrate

NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture
async def database(migrated: Migrate) -> Database:
    return await migrated("users")


@pytest.fixture
def users(database: Database) -> UserRepository:
    return UserRepository(database)


async def add(users: UserRepository, name: str) -> User:
    return await users.add(name=name, email=f"{name.lower()}@example.com", created_at=NOW)


async def names(users: UserRepository) -> list[str]:
    return [user.name for user in (await users.page(limit=100, cursor=None)).items]


async def test_a_user_is_found_as_it_was_added(users: UserRepository) -> None:
    added = await users.add(name="Zoë 🫖", email="zoe@example.com", created_at=NOW)
    assert await users.find(added.id) == added == User(added.id, "Zoë 🫖", "zoe@example.com", NOW)
    assert await users.find(added.id + 1) is None


async def test_an_id_of_64_bits_can_be_asked_for(users: UserRepository) -> None:
    assert await users.find(2**63 - 1) is None


async def test_two_users_never_share_an_email_address(users: UserRepository) -> None:
    await add(users, "Ada")
    with pytest.raises(EmailTaken):
        await add(users, "Ada")
    bob = await add(users, "Bob")
    with pytest.raises(EmailTaken):
        await users.change(bob.id, {"email": "ada@example.com"})
    assert await users.find(bob.id) == bob


async def test_a_request_that_comes_again_finds_whom_it_has_added(users: UserRepository) -> None:
    async def ask(name: str, key: str | None) -> User:
        return await users.add(name=name, email="ada@example.com", created_at=NOW, request_key=key)

    added = await asyncio.gather(*(ask("Ada", "k") for _ in range(10)))
    assert len({user.id for user in added}) == 1
    changed = await users.change(added[0].id, {"name": "Countess"})
    assert await ask("Ada", "k") == changed
    for other in ("j", None):
        with pytest.raises(EmailTaken):
            await ask("Ada", other)


async def test_of_many_who_want_an_address_at_once_one_gets_it(users: UserRepository) -> None:
    results = await asyncio.gather(*(add(users, "Ada") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, EmailTaken) for result in results) == 9


async def test_a_change_leaves_the_rest_alone(users: UserRepository) -> None:
    ada = await add(users, "Ada")
    assert await users.change(ada.id, {"name": "Countess"}) == User(ada.id, "Countess", ada.email, NOW, version=2)
    assert await users.change(ada.id + 1, {"name": "Nobody"}) is None


async def test_a_change_to_the_same_is_no_error(users: UserRepository) -> None:
    ada = await add(users, "Ada")
    same = replace(ada, version=2)
    assert await users.change(ada.id, {"name": "Ada", "email": ada.email}) == same
    assert await logic.change(ada.id, {}, users) == same


async def test_every_change_makes_another_version(users: UserRepository) -> None:
    ada = await add(users, "Ada")
    assert ada.version == 1
    for version in (2, 3):
        changed = await users.change(ada.id, {"name": "Countess"}, expected=frozenset({version - 1}))
        assert changed == await users.find(ada.id)
        assert changed is not None
        assert changed.version == version


async def test_a_change_that_is_meant_for_another_version_changes_nothing(users: UserRepository) -> None:
    ada = await add(users, "Ada")
    for expected in (frozenset({2}), frozenset({2, 3, 2**63 - 1}), frozenset[int]()):
        with pytest.raises(PreconditionFailed):
            await users.change(ada.id, {"name": "Countess"}, expected=expected)
        with pytest.raises(PreconditionFailed):
            await logic.change(ada.id, {}, users, expected=expected)
        with pytest.raises(PreconditionFailed):
            await users.remove(ada.id, expected=expected)
    assert await users.find(ada.id) == ada
    one = frozenset({1})
    assert await logic.change(ada.id, {}, users, expected=one) == ada
    assert await users.change(ada.id + 1, {"name": "Nobody"}, expected=one) is None
    assert not await users.remove(ada.id + 1, expected=one)
    assert await users.remove(ada.id, expected=one)


async def test_of_many_who_change_the_same_version_at_once_one_does(users: UserRepository) -> None:
    ada = await add(users, "Ada")
    wishes = [users.change(ada.id, {"name": f"Ada{n}"}, expected=frozenset({1})) for n in range(20)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    (won,) = [result for result in results if isinstance(result, User)]
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 19
    assert won == await users.find(ada.id) == replace(ada, name=won.name, version=2)


async def test_a_user_is_removed_once(users: UserRepository) -> None:
    ada = await add(users, "Ada")
    assert await users.remove(ada.id)
    assert not await users.remove(ada.id)


async def test_pages_join_up_while_users_come_and_go(users: UserRepository) -> None:
    added = [await add(users, f"U{n}") for n in range(6)]
    first = await users.page(limit=2, cursor=None)
    await users.remove(added[0].id)
    await users.remove(added[1].id)
    await users.remove(added[3].id)
    await add(users, "New")
    second = await users.page(limit=2, cursor=first.next)
    third = await users.page(limit=2, cursor=second.next)
    assert [u.name for p in (first, second, third) for u in p.items] == ["U0", "U1", "U2", "U4", "U5", "New"]
    assert third.next is None


async def test_demo_users_are_put_into_an_empty_database_only(database: Database, users: UserRepository) -> None:
    await demo.seed(database, settings.load())
    assert await users.find(7) == User(7, "User7", "user7@example.com", datetime(2026, 1, 1, tzinfo=UTC))
    assert len(await names(users)) == demo.COUNT
    await users.remove(7)
    await demo.seed(database, settings.load())
    assert await users.find(7) is None
    assert (await add(users, "Ada")).id == demo.COUNT + 1


async def test_processes_that_seed_at_once_seed_once(database: Database, users: UserRepository) -> None:
    await asyncio.gather(*(demo.seed(database, settings.load()) for _ in range(4)))
    assert await names(users) == [f"User{n}" for n in range(1, demo.COUNT + 1)]
