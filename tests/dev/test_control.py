"""Orders to a supervisor over a Unix socket."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from app.dev import control
from app.dev.boot import BootFailed
from app.dev.control import Order, Work
from app.dev.events import Event, Report
from app.errors import Unavailable

USERS = Order(kind="rollout", services=("users",))


@asynccontextmanager
async def listening(folder: Path, work: Work) -> AsyncIterator[Path]:
    with control.place(folder) as path:
        async with control.listen(path, work):
            yield path


async def heard(path: Path, order: Order = USERS) -> list[Event]:
    return await asyncio.to_thread(lambda: list(control.ask(path, order)))


async def obey(order: Order, report: Report, hung_up: asyncio.Event) -> None:
    for service in order.services:
        report(Event(kind="step", text=f"{service} is replaced"))


async def test_an_order_is_carried_out_and_its_news_come_back(tmp_path: Path) -> None:
    async with listening(tmp_path, obey) as path:
        news = await heard(path, Order(kind="rollout", services=("users", "orders")))
    assert [(event.kind, event.text) for event in news] == [
        ("step", "users is replaced"),
        ("step", "orders is replaced"),
        ("done", ""),
    ]


async def test_what_fails_is_said_with_the_end_of_the_log(tmp_path: Path) -> None:
    async def fail(order: Order, report: Report, hung_up: asyncio.Event) -> None:
        raise BootFailed("users-1 ended while starting", tail=("Traceback", "RuntimeError"))

    async with listening(tmp_path, fail) as path:
        assert await heard(path) == [
            Event(kind="failed", text="users-1 ended while starting", details=("Traceback", "RuntimeError"))
        ]


async def test_who_hangs_up_is_known_to_have_lost_interest(tmp_path: Path) -> None:
    lost, finished = asyncio.Event(), asyncio.Event()

    async def work(order: Order, report: Report, hung_up: asyncio.Event) -> None:
        report(Event(kind="step", text="begun"))
        await hung_up.wait()
        lost.set()
        report(Event(kind="step", text="to nobody"))
        finished.set()

    async with listening(tmp_path, work) as path:
        with closing(control.ask(path, USERS)) as news:
            assert (await asyncio.to_thread(next, news)).text == "begun"
            assert not lost.is_set()
        await asyncio.wait_for(finished.wait(), 10)


async def test_whoever_waits_when_the_system_stops_is_told(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def work(order: Order, report: Report, hung_up: asyncio.Event) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with listening(tmp_path, work) as path:
        asking = asyncio.create_task(heard(path))
        await asyncio.wait_for(begun.wait(), 10)
    assert [(event.kind, event.text) for event in await asking] == [("failed", "The system is being stopped")]


@pytest.mark.parametrize("said", [b"{}\n", b"hello\n", b'{"kind": "format", "services": []}\n', b"", b"x" * 100_000])
async def test_what_is_no_order_is_refused(tmp_path: Path, said: bytes) -> None:
    async with listening(tmp_path, obey) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(said)
        writer.write_eof()
        answer = Event.model_validate_json(await asyncio.wait_for(reader.readline(), 10))
        assert (answer.kind, answer.text) == ("failed", "That is no order")
        assert await reader.read() == b""
        writer.close()
        # It still listens.
        assert (await heard(path))[-1].kind == "done"


async def test_a_supervisor_that_vanishes_is_said_so(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        asking = asyncio.create_task(heard(tmp_path / "s"))
        line, _ = await asyncio.to_thread(server.accept)
        await asyncio.to_thread(line.recv, 4096)
        line.close()
    assert [event.text for event in await asking] == ["The supervisor ended without a word"]


async def test_nobody_but_its_owner_may_give_orders(tmp_path: Path) -> None:
    async with listening(tmp_path, obey) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("length", [1, 200])
async def test_the_length_of_the_data_directorys_name_does_not_matter(tmp_path: Path, length: int) -> None:
    folder = tmp_path / ("d" * length)
    folder.mkdir()
    async with listening(folder, obey) as path:
        assert (await heard(path))[-1].kind == "done"
        assert (path.parent == folder) == (length == 1)
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0 or path.parent == folder
    assert not path.exists()
    assert path.parent.exists() == (length == 1)
    with pytest.raises(Unavailable, match="takes no orders"):
        await heard(path)


def test_what_a_killed_supervisor_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    with control.place(folder) as path:
        path.touch()
        control.clear(path)
        assert not path.parent.exists()
    control.clear(path)
