"""The door for what comes out of Redis; what is poison stands in `test_record` and `test_rules`."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest
import structlog

from app.mesh.registry import record
from app.mesh.registry.change import Change, Op, read_change
from app.mesh.registry.operations import Entry, Position, Wish
from app.mesh.registry.reading import Reader
from app.mesh.registry.record import Instance
from tests.mesh.actors import instance

NETWORKS = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def reader() -> Reader:
    return Reader(NETWORKS)


def entry(who: Instance) -> Entry:
    return Entry(who.service, who.id, record.encode(who))


def change(op: Op, body: bytes, id_: str = "users-1") -> Change:
    return Change(Position("e", 7, "m7"), "m6", op, "users", id_, body)


async def test_the_loop_gets_a_turn_after_every_few_records(reader: Reader) -> None:
    many = [entry(instance(id=f"users-{n}")) for n in range(1000)]
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert len(await reader.entries(many)) == 1000
    counting.cancel()
    assert turns > 10


async def test_what_was_read_before_is_not_read_again(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await reader.entries([entry(instance(id="a")), entry(instance(id="b"))])
    decoded: list[bytes] = []
    decode = record.decode

    def counting(raw: bytes, *args: object) -> Instance:
        decoded.append(raw)
        return decode(raw, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("app.mesh.registry.record.decode", counting)
    changed = instance(id="b", weight=0.5)
    second = await reader.entries([entry(instance(id="a")), entry(changed)])
    assert second[0] is first[0]
    assert (second[1], decoded) == (changed, [record.encode(changed)])
    # Nor is more remembered than the last snapshot held.
    await reader.entries([])
    await reader.entries([entry(instance(id="a"))])
    assert len(decoded) == 2


async def test_poison_is_left_out_with_one_warning_however_often_it_is_read(reader: Reader) -> None:
    poison = Entry("users", "evil", record.encode(instance(id="evil", url="http://169.254.169.254:80")))
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert await reader.entries([poison, entry(instance())]) == [instance()]
        assert reader.update(change("up", b"rubbish")).instance is None
    assert [line["event"] for line in logs] == ["poisoned record ignored"] * 2


def test_a_wish_carries_the_mark_of_its_change(reader: Reader) -> None:
    assert reader.update(change("wish", b"12 draining")).wish == Wish("m7", 12, "draining")
    for body in (b"", b"draining", b"x draining", b"12 burning", b"12 "):
        assert reader.update(change("wish", body)).wish is None


def test_an_entry_of_the_log_that_we_do_not_know_is_of_a_later_version() -> None:
    known = read_change(
        b"7-0",
        {b"op": b"left", b"epoch": b"e", b"mark": b"m7", b"prev": b"m6", b"service": b"users", b"id": b"users-1"},
    )
    assert known == change("left", b"")
    assert read_change(b"7-0", {b"op": b"dance"}).op == "other"
    assert read_change(b"7-0", {}).position == Position("", 7, "")
