"""What one process posts, the others have: with a real Redis that is flushed, cut off, and comes back empty."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
import redis

from app import redis_client
from app.dev.redis import Server
from app.mesh.coordination import Board, Line, open_board, open_line
from app.mesh.coordination.board import LOG_LENGTH
from app.mesh.keys import Keys
from tests.auth.clock import Clock
from tests.mesh.actors import redis_line, until

BLOCK_SECONDS = 0.2


@asynccontextmanager
async def process(redis_url: str, namespace: str) -> AsyncIterator[Board]:
    """One process's copy of the board, which hears what the others post unless Redis is away."""
    async with (
        open_line(redis_url, timeout_seconds=2.0) as line,
        open_board(
            "ended",
            line=line,
            watch=redis_client.open_watch(redis_url, block_seconds=BLOCK_SECONDS),
            keys=Keys(namespace),
            block_seconds=BLOCK_SECONDS,
        ) as board,
    ):
        yield board


def soon(seconds: float = 600.0) -> float:
    return round(time.time() + seconds, 3)


def flushed(server: Server) -> None:
    with closing(redis.Redis.from_url(server.url)) as client:
        client.flushall()


def there(url: str, namespace: str) -> dict[str, float]:
    """What Redis has of the board: notice → ms of the epoch."""
    with closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        found: Any = client.zrange(Keys(namespace).board("ended"), 0, -1, withscores=True)
    return dict(found)


async def test_what_is_posted_here_is_believed_at_once_and_heard_there(redis_url: str, namespace: str) -> None:
    async with process(redis_url, namespace) as one, process(redis_url, namespace) as other:
        await until(lambda: one.watching and other.watching)
        end = soon()
        posting = one.post({"s1": end, "s2": end + 1})
        stepper = posting.__await__()
        next(stepper)
        assert one.notices == {"s1": end, "s2": end + 1}
        stepper.close()
        assert await one.post({"s3": end})
        await until(lambda: other.notices.get("s3") == end)


async def test_a_listener_is_told_of_what_is_new_and_of_nothing_twice(redis_url: str, namespace: str) -> None:
    told: list[dict[str, float]] = []
    async with process(redis_url, namespace) as one, process(redis_url, namespace) as other:
        other.listen(lambda notices: told.append(dict(notices)))
        await until(lambda: other.watching)
        end = soon()
        await one.post({"s1": end})
        await until(lambda: told)
        await one.post({"s1": end, "s2": end})
        await one.post({"s3": end})
        await until(lambda: len(told) == 3)
    assert told == [{"s1": end}, {"s2": end}, {"s3": end}]


async def test_who_listens_late_is_told_what_stands(redis_url: str, namespace: str) -> None:
    told: list[dict[str, float]] = []
    async with process(redis_url, namespace) as board:
        end = soon()
        await board.post({"s1": end})
        board.listen(lambda notices: told.append(dict(notices)))
        assert told == [{"s1": end}]


async def test_a_process_that_starts_later_reads_all(redis_url: str, namespace: str) -> None:
    # More than the log holds, and than one call of the script: it is the board that is read.
    end = soon()
    many = {f"s{number}": end + number for number in range(LOG_LENGTH + 500)}
    async with process(redis_url, namespace) as one:
        assert await one.post(many)
    async with process(redis_url, namespace) as late:
        await until(lambda: len(late.notices) == len(many))
        assert late.notices == many


async def test_an_end_is_never_brought_forward(redis_url: str, namespace: str) -> None:
    async with process(redis_url, namespace) as one, process(redis_url, namespace) as other:
        await until(lambda: one.watching and other.watching)
        end = soon()
        await one.post({"s": end})
        await until(lambda: other.notices == {"s": end})
        await other.post({"s": end - 100, "marker": end})
        await until(lambda: "marker" in one.notices)
        assert one.notices["s"] == other.notices["s"] == end
        assert there(redis_url, namespace)["s"] == pytest.approx(end * 1000)
        await other.post({"s": end + 100})
        await until(lambda: one.notices["s"] == end + 100)


async def test_a_flushed_redis_takes_nothing_back_and_is_filled_again(private_redis: Server, namespace: str) -> None:
    async with process(private_redis.url, namespace) as one, process(private_redis.url, namespace) as other:
        await until(lambda: one.watching and other.watching)
        end = soon()
        await one.post({"s1": end})
        await other.post({"s2": end})
        await until(lambda: one.notices == other.notices == {"s1": end, "s2": end})
        flushed(private_redis)
        await until(lambda: len(there(private_redis.url, namespace)) == 2)
        assert one.notices == other.notices == {"s1": end, "s2": end}
        async with process(private_redis.url, namespace) as late:
            await until(lambda: late.notices == {"s1": end, "s2": end})


async def test_a_redis_that_comes_back_empty_is_filled_again(private_redis: Server, namespace: str) -> None:
    async with (
        redis_line(private_redis.url) as far,
        process(far.url, namespace) as one,
        process(far.url, namespace) as other,
    ):
        await until(lambda: one.watching and other.watching)
        end = soon()
        await one.post({"s": end})
        await until(lambda: other.notices == {"s": end})
        await far.cut()
        await until(lambda: not one.watching and not other.watching)
        flushed(private_redis)
        await far.mend()
        await until(lambda: there(private_redis.url, namespace) != {})
        assert one.notices == other.notices == {"s": end}


async def test_what_is_posted_while_redis_is_away_is_delivered_later(redis_url: str, namespace: str) -> None:
    async with redis_line(redis_url) as far, process(far.url, namespace) as one, process(redis_url, namespace) as other:
        await until(lambda: one.watching and other.watching)
        await far.cut()
        end = soon()
        assert not await one.post({"s": end})
        assert one.notices == {"s": end}
        await far.mend()
        await until(lambda: other.notices == {"s": end})


async def test_what_redis_refuses_is_delivered_when_it_takes_it(redis_url: str, namespace: str, keys: Keys) -> None:
    with closing(redis.Redis.from_url(redis_url)) as somebody:
        async with process(redis_url, namespace) as one, process(redis_url, namespace) as other:
            await until(lambda: one.watching and other.watching and not one._tasks)
            somebody.set(keys.board("ended"), "no board", ex=60)
            end = soon()
            assert not await one.post({"s": end})
            assert one.notices == {"s": end}
            somebody.delete(keys.board("ended"))
            await until(lambda: other.notices == {"s": end})


async def test_a_board_that_cannot_be_read_at_first_is_read_later(redis_url: str, namespace: str, keys: Keys) -> None:
    with closing(redis.Redis.from_url(redis_url)) as somebody:
        end = soon()
        async with process(redis_url, namespace) as one:
            assert await one.post({"s": end})
        somebody.rename(keys.board("ended"), aside := f"{keys.board('ended')}:aside")
        somebody.set(keys.board("ended"), "no board", ex=60)
        async with process(redis_url, namespace) as late:
            await until(lambda: late.watching and late._retrying)
            assert late.notices == {}
            somebody.rename(aside, keys.board("ended"))
            await until(lambda: late.notices == {"s": end})


async def test_an_end_that_was_put_off_while_redis_was_away_is_put_off_everywhere(
    redis_url: str, namespace: str
) -> None:
    async with redis_line(redis_url) as far, process(far.url, namespace) as one, process(redis_url, namespace) as other:
        await until(lambda: one.watching and other.watching)
        end = soon()
        await one.post({"s": end})
        await until(lambda: other.notices == {"s": end})
        await far.cut()
        assert not await one.post({"s": end + 100})
        await far.mend()
        await until(lambda: other.notices == {"s": end + 100})


async def test_what_was_missed_while_deaf_is_read_afterwards(redis_url: str, namespace: str) -> None:
    async with redis_line(redis_url) as far, process(far.url, namespace) as one, process(redis_url, namespace) as other:
        await until(lambda: one.watching and other.watching)
        await far.cut()
        await until(lambda: not one.watching)
        end = soon()
        await other.post({f"s{number}": end for number in range(3)})
        assert one.notices == {}
        await far.mend()
        await until(lambda: len(one.notices) == 3)


async def test_a_process_starts_while_redis_is_away(redis_url: str, namespace: str) -> None:
    async with redis_line(redis_url) as far:
        await far.cut()
        async with process(far.url, namespace) as board:
            assert not board.watching
            await board.post({"s": soon()})
            assert repr(board) == "<Board ended, 1 notices, deaf>"
            await far.mend()
            await until(lambda: board.watching and there(redis_url, namespace))


async def test_notices_end_by_themselves(line: Line, keys: Keys, redis_url: str, namespace: str) -> None:
    clock = Clock(time.time())
    board = Board("ended", line=line, keys=keys, clock=clock)
    await board.post({"short": clock.now + 10, "long": clock.now + 20, "over": clock.now})
    assert set(board.notices) == {"short", "long"}
    clock.now += 10.1
    assert set(board.notices) == {"long"}
    assert board.describe() == {"notices": 1, "watching": False}
    await board.post({"another": clock.now + 20})
    # They leave memory and Redis as well, with whatever is posted next.
    assert set(board._copy) == {"long", "another"}
    assert set(there(redis_url, namespace)) == {"long", "another"}
    await board.aclose()


async def test_every_key_of_it_ends(redis_url: str, namespace: str, keys: Keys, store: redis.Redis) -> None:
    async with process(redis_url, namespace) as board:
        await board.post({"s": soon()})
    assert sorted(store.scan_iter(f"{{{namespace}}}:board:*")) == [keys.board("ended"), keys.board_log("ended")]
    assert all(0 < store.ttl(key) <= 86_400 for key in (keys.board("ended"), keys.board_log("ended")))


async def test_names_of_any_kind_arrive_as_they_are(redis_url: str, namespace: str) -> None:
    odd = ["with spaces and 7", "ünïcode", '"quoted"', "a:b", "x" * 200, "\\"]
    async with process(redis_url, namespace) as one, process(redis_url, namespace) as other:
        await until(lambda: other.watching)
        end = soon()
        await one.post(dict.fromkeys(odd, end))
        await until(lambda: other.notices == dict.fromkeys(odd, end))


async def test_boards_of_other_names_and_namespaces_are_others(redis_url: str, namespace: str, line: Line) -> None:
    async with process(redis_url, namespace) as board:
        await until(lambda: board.watching)
        stranger = Board("other", line=line, keys=Keys(namespace))
        await stranger.post({"s": soon()})
        await board.post({"marker": soon()})
        assert set(board.notices) == {"marker"}
        await stranger.aclose()
