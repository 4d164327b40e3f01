"""Dead letters: what comes there and why, and that each is in one place until somebody has decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import redis
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict, InvalidInput, NotFound
from app.events.operating.dead import DeadLetters, Letter
from app.mesh.coordination import open_line
from app.mesh.keys import Keys
from tests.events.shop import NAME, Bought, Shop, until

PARTITIONS = 4

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Poison(RuntimeError):
    """What the handler of these tests raises."""


@pytest.fixture
async def letters(redis_url: str, keys: Keys) -> AsyncIterator[DeadLetters]:
    async with open_line(redis_url, timeout_seconds=2.0) as line:
        yield DeadLetters(line, keys, NAME, PARTITIONS)


async def refuse_ann(bought: Bought, _: AsyncSession) -> None:
    if bought.customer == "ann":
        raise Poison(f"no more for {bought.customer}")


async def dead(letters: DeadLetters, count: int) -> Sequence[Letter]:
    """Wait for so many."""

    async def enough() -> bool:
        return len(await letters.list()) >= count

    await until(enough)
    return await letters.list()


@on_sqlite
async def test_poison_is_tried_so_often_and_put_aside_with_its_reason_while_the_rest_flows(
    shop: Shop, letters: DeadLetters
) -> None:
    async with shop.process(refuse_ann, tries=3):
        await shop.buy("ann", "bob", "cid")
        [letter] = await dead(letters, 1)
        await shop.buy("bob")
        await shop.until_sold(3)
    assert (letter.error, letter.tries, letter.detail) == ("Poison", 3, "no more for ann")
    assert "in refuse_ann" in letter.trace
    assert letter.event is not None
    assert letter.event.data == {"customer": "ann", "number": 1}
    assert await letters.show(letter.id) == letter
    assert "ann" not in repr(letter)


@on_sqlite
async def test_what_is_replayed_takes_effect_and_is_no_dead_letter_any_more(
    shop: Shop, letters: DeadLetters, store: redis.Redis, keys: Keys
) -> None:
    async with shop.process(refuse_ann, tries=1):
        await shop.buy("ann")
        [letter] = await dead(letters, 1)
    async with shop.process():
        await letters.replay(letter.id)
        await shop.until_sold(1)
    assert await shop.sold("ann") == [1]
    assert await letters.list() == []
    with pytest.raises(NotFound):
        await letters.replay(letter.id)
    assert [store.xlen(keys.again(NAME, partition)) for partition in range(PARTITIONS)] == [0] * PARTITIONS


@on_sqlite
async def test_of_many_who_replay_a_letter_one_does(
    shop: Shop, letters: DeadLetters, store: redis.Redis, keys: Keys
) -> None:
    async with shop.process(refuse_ann, tries=1):
        await shop.buy("ann")
        [letter] = await dead(letters, 1)
    outcomes = await asyncio.gather(*(letters.replay(letter.id) for _ in range(10)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["NotFound"] * 9
    assert sum(int(store.xlen(keys.again(NAME, partition))) for partition in range(PARTITIONS)) == 1


@on_sqlite
async def test_all_that_are_there_are_replayed_once_even_if_they_fail_again(shop: Shop, letters: DeadLetters) -> None:
    async with shop.process(refuse_ann, tries=1):
        await shop.buy("ann", "ann", "ann")
        first = await dead(letters, 3)
        assert await letters.replay_all() == 3
        again = await dead(letters, 3)
    assert {letter.id for letter in first}.isdisjoint(letter.id for letter in again)
    assert {letter.event.id for letter in first if letter.event} == {
        letter.event.id for letter in again if letter.event
    }


@on_sqlite
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"event": "no JSON"}, id="no JSON"),
        pytest.param({"event": '{"id": "1"}'}, id="no CloudEvent"),
        pytest.param({"event": "[]"}, id="no object"),
        pytest.param({"event": ""}, id="empty"),
        pytest.param({"sale": "ann"}, id="another field"),
    ],
)
async def test_what_is_no_event_is_put_aside_and_holds_nothing_up(
    shop: Shop, letters: DeadLetters, store: redis.Redis, keys: Keys, fields: dict[str, str]
) -> None:
    stream = keys.events(NAME, 2)
    async with shop.process():
        store.xadd(stream, fields, id="1-1")  # type: ignore[arg-type]  # redis-py's dict is invariant
        store.pexpire(stream, 60_000)
        [letter] = await dead(letters, 1)
        await shop.buy("ann", "bob", "cid", "dan", "eve")
        await shop.until_sold(5)
    assert (letter.event, letter.error, letter.tries) == (None, "Unreadable", 0)
    assert (letter.stream, letter.content.decode()) == (stream, fields.get("event") or " ".join(*fields.items()))
    assert store.xpending(stream, NAME)["pending"] == 0
    await letters.replay(letter.id)
    assert store.xlen(keys.again(NAME, 2)) == 1


@on_sqlite
async def test_a_letter_that_nobody_would_read_again_stays(
    shop: Shop, letters: DeadLetters, store: redis.Redis, keys: Keys
) -> None:
    async with shop.process(refuse_ann, tries=1):
        await shop.buy("ann")
        [letter] = await dead(letters, 1)
    for partition in range(PARTITIONS):
        store.delete(keys.again(NAME, partition))
    with pytest.raises(Conflict, match="start the service"):
        await letters.replay(letter.id)
    assert await letters.list() == [letter]


async def test_letters_come_in_pages_and_go_one_by_one_or_all(
    letters: DeadLetters, store: redis.Redis, keys: Keys
) -> None:
    for number in range(1, 251):
        store.xadd(keys.dead(NAME), {"event": "?"}, id=f"{number}-0")
    store.pexpire(keys.dead(NAME), 60_000)
    page = await letters.list(10, after="7-0")
    assert [letter.id for letter in page] == [f"{number}-0" for number in range(8, 18)]
    await letters.drop("8-0")
    assert [letter.id for letter in await letters.list(2, after="6-0")] == ["7-0", "9-0"]
    assert await letters.drop_all() == 249
    assert await letters.drop_all() == 0


@pytest.mark.parametrize("letter_id", ["5-0", "0-0", "5", "-", "+", "$", "", "5-0 6-0", "(5-0", "9" * 30])
async def test_an_unknown_letter_is_not_found(
    letters: DeadLetters, store: redis.Redis, keys: Keys, letter_id: str
) -> None:
    store.xadd(keys.dead(NAME), {"event": "?"}, id="7-0")
    store.pexpire(keys.dead(NAME), 60_000)
    for act in (letters.show, letters.replay, letters.drop):
        with pytest.raises(NotFound):
            await act(letter_id)
    assert [letter.id for letter in await letters.list()] == ["7-0"]


@on_sqlite
async def test_a_letter_without_an_event_can_be_looked_at_and_dropped_only(
    shop: Shop, letters: DeadLetters, store: redis.Redis, keys: Keys
) -> None:
    async with shop.process() as events:
        await until(lambda: _all_held(events))
    letter_id = str(store.xadd(keys.dead(NAME), {"somebody's": "own"}))
    store.pexpire(keys.dead(NAME), 60_000)
    assert (await letters.show(letter_id)).content == b""
    with pytest.raises(Conflict, match="no event"):
        await letters.replay(letter_id)
    await letters.drop(letter_id)
    with pytest.raises(InvalidInput):
        await letters.list(after="the last one")


async def _all_held(events: object) -> bool:
    return len(events.describe()["partitions"]) == PARTITIONS  # type: ignore[attr-defined]
