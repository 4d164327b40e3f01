"""Users are read through the cache, and nobody is told an old name for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as client_library
from sqlalchemy import update

from app.mesh.keys import Keys
from app.services.users.events import outbox
from app.services.users.models import users as table
from tests.faults import redis
from tests.faults.redis import Redis
from tests.services.conftest import Running, Start, until
from tests.services.outboxes import published

PATH = "/users/7"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis that this test may break."""
    with redis.running(tmp_path / "redis") as server:
        yield server


async def name(users: Running) -> str:
    return str((await users.get(PATH))["name"])


async def rename(users: Running, new: str) -> None:
    await users.ask("PATCH", PATH, 200, json={"name": new})


async def forget_nothing(*processes: Running) -> None:
    """Wait until each of them keeps the user in its own memory."""
    for users in processes:
        resources = users.process.resources
        assert resources is not None

        async def kept(users: Running = users, cache: Any = resources.cache) -> bool:
            await name(users)
            return bool(cache.watched) and cache.describe()["local"]["entries"] > 0

        await until(kept)


async def until_told(client: client_library.Redis, keys: Keys, new: str) -> None:
    """Wait until the rename stands in a stream, where others may read of it."""

    def told() -> bool:
        found: list[Any] = [client.xrange(keys.events("users", partition)) for partition in range(8)]
        return any(f'"{new}"'.encode() in fields[b"event"] for entries in found for _, fields in entries)

    await until(told)


async def test_a_user_who_was_read_is_not_looked_up_again(start: Start) -> None:
    users = await start("users")
    await forget_nothing(users)
    async with users.database.session() as session:
        await session.execute(update(table).values(name="Behind our back"))
    assert await name(users) == "User7"


async def test_a_change_and_a_removal_are_told_and_known_at_once_where_they_were_made(start: Start) -> None:
    users = await start("users")
    await forget_nothing(users)
    await rename(users, "Ada")
    assert await name(users) == "Ada"
    await users.ask("DELETE", PATH, 204)
    await users.get(PATH, 404)
    told = [(event.type, event.data) for event in await published(users.database, outbox)]
    assert told == [
        ("cache.invalidated", {"tags": ["user:7"]}),
        ("changed", {"user_id": 7, "name": "Ada"}),
        ("cache.invalidated", {"tags": ["user:7"]}),
        ("removed", {"user_id": 7}),
    ]


async def test_what_is_refused_is_not_told(start: Start) -> None:
    users = await start("users")
    await users.ask("PATCH", PATH, 409, json={"email": "user8@example.com"})
    await users.ask("PATCH", "/users/999", 404, json={"name": "Nobody"})
    await users.ask("DELETE", "/users/999", 404)
    assert await published(users.database, outbox) == []


async def test_that_somebody_is_not_there_is_not_remembered(start: Start) -> None:
    one, other = await start("users"), await start("users")
    for users in (one, other):
        await users.get("/users/101", 404)
    assert (await one.ask("POST", "/users", 201, json={"name": "Ada", "email": "ada@example.com"}))["id"] == 101
    assert (await other.get("/users/101"))["name"] == "Ada"


async def test_once_a_rename_is_told_no_process_says_the_old_name(start: Start, redis_url: str, namespace: str) -> None:
    one, other = await start("users"), await start("users")
    with client_library.Redis.from_url(redis_url) as client:
        for new in ("Ada", "Bea", "Cid"):
            await forget_nothing(one, other)
            await rename(one, new)
            assert await name(one) == new
            await until_told(client, Keys(namespace), new)
            await _says_only(other, new)


@pytest.mark.parametrize("away", ["stands still", "is emptied"])
async def test_nor_does_it_when_redis_was_away_meanwhile(
    start: Start, server: Redis, namespace: str, away: str
) -> None:
    one, other = [await start("users", redis_url=server.url) for _ in range(2)]
    await forget_nothing(one, other)
    server.stand_still() if away == "stands still" else server.kill()
    await rename(one, "Ada")
    assert await name(one) == "Ada"
    server.move_on() if away == "stands still" else server.start()
    with server.client() as client:
        await until_told(client, Keys(namespace), "Ada")
    await _says_only(other, "Ada")
    assert await name(one) == "Ada"


async def _says_only(users: Running, new: str) -> None:
    """The news of it may be on its way for a moment; after it the old name never comes back."""

    async def says_it() -> bool:
        return await name(users) == new

    await until(says_it, seconds=5)
    for _ in range(20):
        assert await says_it()
