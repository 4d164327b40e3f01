from __future__ import annotations

import asyncio
import time

import pytest

from app.deadline import RESOLUTION_SECONDS, Deadlines


async def test_a_block_that_takes_too_long_ends_in_a_timeout_and_not_before_its_time() -> None:
    deadlines, started = Deadlines(), time.monotonic()
    with pytest.raises(TimeoutError), deadlines.within(0.05):
        await asyncio.Event().wait()
    assert time.monotonic() - started >= 0.05 - RESOLUTION_SECONDS
    assert repr(deadlines) == "<Deadlines 0 running>"


async def test_a_block_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with deadlines.within(0.01):
        pass
    await asyncio.sleep(0.03)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    deadlines.close()


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_is_a_timeout_at_the_first_wait(seconds: float) -> None:
    with pytest.raises(TimeoutError), Deadlines().within(seconds):
        await asyncio.Event().wait()


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        with deadlines.within(60):
            await asyncio.Event().wait()

    deadlines = Deadlines()
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert repr(deadlines) == "<Deadlines 0 running>"
    deadlines.close()


async def test_a_cancellation_from_outside_wins_over_the_deadline() -> None:
    async def work() -> None:
        with deadlines.within(0):
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    deadlines = Deadlines()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_an_error_of_the_block_is_not_replaced() -> None:
    async def work() -> None:
        with Deadlines().within(0.01):
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()


async def test_blocks_end_in_the_order_of_their_deadlines_however_they_began() -> None:
    async def work(seconds: float) -> None:
        with pytest.raises(TimeoutError), deadlines.within(seconds):
            await asyncio.Event().wait()
        ended.append(seconds)

    deadlines, ended = Deadlines(), list[float]()
    await asyncio.gather(*(work(seconds) for seconds in (0.15, 0.05, 0.1, 0.2, 0.0)))
    assert ended == [0.0, 0.05, 0.1, 0.15, 0.2]


async def test_nested_deadlines_each_end_their_own_block() -> None:
    deadlines = Deadlines()
    with deadlines.within(60):
        with pytest.raises(TimeoutError), deadlines.within(0.01):
            await asyncio.Event().wait()
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadlines.within(0.01), deadlines.within(60):
        await asyncio.Event().wait()
    deadlines.close()


async def test_a_block_that_is_prolonged_has_its_time_from_then_on() -> None:
    deadlines = Deadlines()
    with deadlines.within(0.01) as bound:
        bound.prolong(60)
        await asyncio.sleep(0.05)
    assert repr(deadlines) == "<Deadlines 0 running>"


async def test_a_block_can_be_given_less_time_than_before() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(60) as bound:
            bound.prolong(0.01)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await work()
    deadlines.close()


async def test_a_block_whose_time_is_over_may_be_reprieved_and_ends_when_it_is_not_any_more() -> None:
    deadlines = Deadlines()
    reprieves = iter([0.01, 0.01, 0.0])
    with pytest.raises(TimeoutError), deadlines.within(0.01, lambda: next(reprieves)):
        await asyncio.Event().wait()
    assert list(reprieves) == []
    assert repr(deadlines) == "<Deadlines 0 running>"


async def test_blocks_that_end_together_are_each_ended_or_reprieved() -> None:
    deadlines, ended = Deadlines(), list[int]()

    async def work(number: int) -> None:
        reprieves = iter([0.01] * (number % 2))
        with pytest.raises(TimeoutError), deadlines.within(0.01, lambda: next(reprieves, 0.0)):
            await asyncio.Event().wait()
        assert list(reprieves) == []
        ended.append(number)

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(number) for number in range(10)))
    assert sorted(ended) == list(range(10))
    assert repr(deadlines) == "<Deadlines 0 running>"
