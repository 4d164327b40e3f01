"""``mesh events``: an operator looks at what happens, mends it, and reads nothing that is personal by accident."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.tail import json_of, line_of
from app.events import envelope
from app.events.operating.tail import Entry
from app.events.position import Position
from app.mesh.keys import EventStream, Keys
from tests.dev.system import command, typed, user_environment
from tests.events.shop import NAME, Bought, Shop, until

EVENT = """{"specversion": "1.0", "id": "e1", "type": "shop.bought", "dataversion": 1, "source": "/shop",
 "partitionkey": "\\u001b[31mann\\r\\n", "time": "2026-11-28T12:00:00+00:00", "data": {"customer": "ann"}}"""

Shell = dict[str, str]
Outcome = subprocess.CompletedProcess[str]


async def events(*arguments: str) -> Outcome:
    """Run `mesh events …` in a thread of this process."""
    return await asyncio.to_thread(typed, "events", *arguments)


async def refuse_ann(bought: Bought, _: AsyncSession) -> None:
    if bought.customer == "ann":
        raise RuntimeError(f"{bought.customer} again")


async def letters(count: int) -> list[list[str]]:
    """Wait until so many dead letters are listed; their rows."""
    rows: list[list[str]] = []

    async def listed() -> bool:
        rows[:] = [line.split() for line in (await events("dead", "list", NAME)).stdout.splitlines()[1:]]
        return len(rows) == count

    await until(listed)
    return rows


async def test_a_poisonous_event_is_found_shown_and_replayed_when_its_handler_is_mended(
    shop: Shop, shell: Shell
) -> None:
    async with shop.process(refuse_ann, tries=2):
        await shop.buy("ann", "bob")
        await shop.until_sold(1)
        [[service, letter_id, _, type_, tries, error]] = await letters(1)
    assert (service, type_, tries, error) == (NAME, "shop.bought", "2", "RuntimeError")
    assert "ann" not in (await events("dead", "list")).stdout
    shown = (await events("dead", "show", NAME, letter_id)).stdout
    for said in ('"customer": "ann"', "error   RuntimeError: ann again", "tries   2", "in refuse_ann"):
        assert said in shown
    async with shop.process():
        assert (await events("dead", "replay", NAME, letter_id)).stdout == f"{letter_id} was replayed\n"
        await shop.until_sold(2)
    assert await shop.sold("ann") == [1]
    assert (await events("dead", "list")).stdout == "No dead letters.\n"


async def test_all_dead_letters_go_at_once_and_are_counted(shop: Shop, shell: Shell) -> None:
    async with shop.process(refuse_ann, tries=1):
        await shop.buy("ann", "ann", "ann")
        rows = await letters(3)
        assert (await events("dead", "replay", NAME, "--all")).stdout == "3 dead letters were replayed\n"
        assert {row[1] for row in rows}.isdisjoint(row[1] for row in await letters(3))
    [first, *_] = await letters(3)
    assert (await events("dead", "drop", NAME, first[1])).stdout == f"{first[1]} was dropped\n"
    assert (await events("dead", "drop", NAME, "--all")).stdout == "2 dead letters were dropped\n"
    assert await shop.sold("ann") == []


async def test_lag_says_who_is_behind_and_by_how_much(shop: Shop, shell: Shell, store: redis.Redis, keys: Keys) -> None:
    gate = asyncio.Event()

    async def wait(_: Bought, __: AsyncSession) -> None:
        await gate.wait()

    async def behind() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await events("lag", "--json")).stdout)
        return found

    async def all_open() -> bool:
        return [group["open"] for group in (await behind())["groups"]] == [3, 0]

    async with shop.process(wait):
        await shop.buy("ann", "bob", "cid")
        await until(all_open)
        store.xadd(keys.dead(NAME), {"event": "?"})
        store.pexpire(keys.dead(NAME), 60_000)
        found = await behind()
        table = (await events("lag")).stdout
        assert (await events("lag", "--max", "2")).returncode == 1
        assert (await events("lag", "--max", "3")).returncode == 0
        gate.set()
        await shop.until_sold(3)
    [own, again] = found["groups"]
    assert (own["service"], own["group"], own["waiting"], own["exact"], own["open"]) == (NAME, NAME, 0, True, 3)
    assert own["owners"] == dict.fromkeys("0123", "shop-1")
    assert own["oldest_seconds"] >= 0
    assert (again["service"], again["open"]) == (None, 0)
    assert found["dead"] == {NAME: 1}
    assert re.search(r"^shop +shop +0 +3 +\d+\.\d s +shop-1: 0 1 2 3$", table, re.MULTILINE)
    assert "Dead letters of shop: 1; `mesh events dead list shop`" in table


def test_where_nothing_is_published_nobody_is_behind(shell: Shell) -> None:
    assert typed("events", "lag", "--max", "0").stdout == "Nobody hears events.\n"
    assert json.loads(typed("events", "lag", "--json").stdout) == {"groups": [], "dead": {}, "outboxes": {}}


async def test_a_group_that_is_gone_is_forgotten_if_that_is_meant(shop: Shop, shell: Shell) -> None:
    async with shop.process():
        await shop.buy("ann")
        await shop.until_sold(1)
        busy = await events("forget", NAME, "--yes")
    assert (busy.returncode, busy.stderr) == (1, "mesh: A process of shop handles events now; stop the service first\n")
    asked = await events("forget", NAME)
    assert asked.returncode == 2
    assert "say --yes" in asked.stderr
    assert (await events("forget", NAME, "--yes")).stdout == "shop was removed from 8 streams\n"
    assert (await events("forget", NAME, "--yes")).stderr == "mesh: No stream has a group 'shop'\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("dead", "show", "shop", "1-1"), 1, "mesh: shop has no dead letter '1-1'\n"),
        (("dead", "replay", "shop", "1-1"), 1, "mesh: shop has no dead letter '1-1'\n"),
        (("dead", "drop", "shop", "nonsense"), 1, "mesh: shop has no dead letter 'nonsense'\n"),
        (("dead", "drop", "shop"), 2, "mesh: Either the id of a dead letter or --all\n"),
        (("dead", "replay", "shop", "1-1", "--all"), 2, "mesh: Either the id of a dead letter or --all\n"),
        (("dead", "list", "shop", "--after", "x"), 2, "mesh: The id of a dead letter looks like 1700000000000-0\n"),
        (("tail", "nobody"), 1, "mesh: Nobody of the name 'nobody' publishes events\n"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_code(shell: Shell, arguments: tuple[str, ...], code: int, said: str) -> None:
    outcome = typed("events", *arguments)
    assert (outcome.returncode, outcome.stderr, outcome.stdout) == (code, said, "")


@pytest.mark.parametrize("arguments", [("lag",), ("tail",), ("dead", "list"), ("forget", "x", "--yes")])
def test_without_redis_it_says_so_in_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    outcome = typed("events", *arguments)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("mesh: Redis is away")
    assert outcome.stderr.count("\n") == 1


class TestTail:
    async def test_what_is_published_is_a_line_as_it_comes_until_ctrl_c(self, shop: Shop, shell: Shell) -> None:
        async with shop.process():
            await shop.buy("ann")
            await shop.until_sold(1)
            with following(shell, "--from-start", "--type", "shop.bought", NAME) as process:
                lines = [await line_from(process)]
                await shop.buy("bob")
                lines.append(await line_from(process))
            code, rest, err = ended(process)
        for line, customer in zip(lines, ("ann", "bob"), strict=True):
            when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
            assert re.fullmatch(rf"{when}  shop\.bought  {customer}  [0-9a-f]{{32}}\n", line)
        assert (code, rest, err) == (130, "", "")

    @pytest.mark.parametrize(
        ("content", "line"),
        [
            pytest.param(EVENT, "2026-11-28T12:00:00.000+00:00  shop.bought  �[31mann��  e1", id="an event"),
            pytest.param("no JSON", "unreadable: entry 7-1 of partition 2 of shop", id="none"),
        ],
    )
    def test_what_somebody_typed_somewhere_does_not_steer_the_terminal(
        self, content: str, line: str, keys: Keys
    ) -> None:
        stream = EventStream(keys.events(NAME, 2), "events", NAME, 2)
        entry = Entry(stream, Position(7, 1), None if content != EVENT else envelope.parse(content), content.encode())
        assert line_of(entry) == line
        told = json.loads(json_of(entry))
        assert told == (json.loads(EVENT) if entry.event else {"unreadable": "7-1", "stream": stream.key})
        assert "\n" not in json_of(entry)


@contextmanager
def following(shell: Shell, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `mesh events tail` of its own, with Ctrl-C at the end."""
    process = subprocess.Popen(
        command("events", "tail", *arguments), env=user_environment(**shell), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.send_signal(signal.SIGINT)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


async def line_from(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await asyncio.to_thread(process.stdout.readline)
