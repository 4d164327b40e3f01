from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import redis
import uvloop

from app.dev.redis import Server
from app.errors import Unavailable
from app.mesh.coordination import Line, open_line
from app.mesh.coordination.line import Script
from app.mesh.coordination.line import load as load_script
from tests.faults import proxy
from tests.mesh import actors
from tests.mesh.actors import until

ECHO = Script("echo", "return ARGV[1]", redis.Redis().register_script("return ARGV[1]").sha)


async def test_a_script_that_redis_has_forgotten_is_sent_again(private_redis: Server) -> None:
    async with open_line(private_redis.url, timeout_seconds=2.0) as line:
        assert await line.run(ECHO, (), ("a",)) == b"a"
        with redis.Redis.from_url(private_redis.url) as client:
            client.script_flush()
        assert await line.run(ECHO, (), ("b",)) == b"b"


def test_a_script_is_known_by_its_own_digest() -> None:
    script = load_script("app.mesh.coordination", "release")
    assert script.sha == redis.Redis().register_script(script.source).sha


def test_connections_that_are_reset_at_any_moment_are_told_as_a_redis_that_is_away(private_redis: Server) -> None:
    """On the loop that serves in production, which says so in another way than the standard one."""

    async def ask(line: Line) -> None:
        with suppress(Unavailable):
            await line.run(ECHO, (), ("a",))

    async def run() -> None:
        at = urlsplit(private_redis.url)
        with proxy.to("127.0.0.1", at.port or 0) as far:
            url = private_redis.url.replace(f":{at.port}", f":{far.port}")
            for _ in range(20):
                # A line of its own each time: one that was lost waits before it tries again.
                async with open_line(url, timeout_seconds=2.0) as line:
                    await asyncio.gather(*(ask(line) for _ in range(30)))
                    resetting = asyncio.create_task(asyncio.to_thread(far.reset))
                    while not resetting.done():
                        await asyncio.gather(*(ask(line) for _ in range(5)))

    uvloop.run(run())


async def test_replies_do_not_cross_when_callers_are_cancelled(line: Line) -> None:
    async def ask(number: int) -> bool:
        return bool(await line.run(ECHO, (), (str(number),)) == str(number).encode())

    tasks = [asyncio.create_task(ask(number)) for number in range(600)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            task.cancel()
        if number % 40 == 0:
            await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {answer for answer in answers if not isinstance(answer, asyncio.CancelledError)} == {True}
    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) > 20
    await until(lambda: ", 0 under way" in repr(line))


async def test_a_caller_that_is_cancelled_costs_no_connection(private_redis: Server) -> None:
    async with open_line(private_redis.url, timeout_seconds=2.0) as line:
        await line.run(ECHO, (), ("a",))
        for turns in range(1, 31):
            task = asyncio.create_task(line.run(ECHO, (), ("a",)))
            for _ in range(turns % 6 + 1):
                await asyncio.sleep(0)
            task.cancel()
            await until(lambda: ", 0 under way" in repr(line))
        with redis.Redis.from_url(private_redis.url) as client:
            assert client.info("clients")["connected_clients"] <= 3
            assert client.info("stats")["total_connections_received"] <= 6


async def test_a_caller_that_is_cancelled_leaves_at_once_whatever_redis_does(private_redis: Server) -> None:
    # So long that whoever waited for the command would outlast this test.
    async with open_line(private_redis.url, timeout_seconds=600.0) as line:
        await line.run(ECHO, (), ("a",))
        assert private_redis.pid is not None
        os.kill(private_redis.pid, signal.SIGSTOP)
        try:
            task = asyncio.create_task(line.run(ECHO, (), ("a",)))
            await until(lambda: ", 1 under way" in repr(line))
            task.cancel()
            # "At once" is a few turns of the loop, however long a busy machine takes for them.
            for _ in range(5):
                await asyncio.sleep(0)
            assert task.cancelled()
            assert ", 1 under way" in repr(line)
        finally:
            os.kill(private_redis.pid, signal.SIGCONT)


async def test_while_redis_is_away_calls_are_refused_at_once_and_it_is_found_again(redis_url: str) -> None:
    news: list[bool] = []
    async with actors.redis_line(redis_url) as wire, open_line(wire.url, timeout_seconds=2.0) as line:
        line.listen(news.append)
        await wire.cut()
        results = await asyncio.gather(*(line.run(ECHO, (), ("a",)) for _ in range(100)), return_exceptions=True)
        assert {type(result) for result in results} == {Unavailable}
        with pytest.raises(Unavailable, match="Redis is away"):
            await line.run(ECHO, (), ("a",))
        assert news == [False]
        await wire.mend()
        await until(lambda: line.up)
        assert news == [False, True]
        assert await line.run(ECHO, (), ("a",)) == b"a"


async def test_a_script_that_fails_is_no_absence(line: Line) -> None:
    broken = Script("broken", "return redis.call('NONSENSE')", "0" * 40)
    with pytest.raises(Unavailable, match="Redis, broken"):
        await line.run(broken, ())
    assert line.up


async def test_a_closed_line_has_nothing_under_way_and_takes_nothing(redis_url: str) -> None:
    async with open_line(redis_url, timeout_seconds=2.0) as line:
        line.spawn(asyncio.Event().wait())
    assert ", 0 under way" in repr(line)
    with pytest.raises(Unavailable):
        await line.run(ECHO, ())
