from __future__ import annotations

from dataclasses import replace

import pytest

from app.data.versions import Expected
from app.errors import Unavailable
from app.services.orders.logic import Draft, Order, Policy, State
from app.services.orders.waiting import Pauses, until_settled
from tests.services.orders.placing import NOW

PENDING = Order(1, 7, State.PENDING, "r1", NOW, ())
PAUSES = Pauses(first_seconds=1.0, growth=2.0, longest_seconds=5.0)


class Stage:
    """Time that passes only while somebody sleeps, and an order that is settled at `at`, if ever."""

    def __init__(self, *, at: float = float("inf"), away: bool = False) -> None:
        self.now, self.looks = 0.0, list[float]()
        self._at, self._away = at, away

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def find(self, order_id: int) -> Order | None:
        self.looks.append(self.now)
        if self._away:
            raise Unavailable
        return replace(PENDING, state=State.CONFIRMED) if self.now >= self._at else PENDING

    async def add(self, draft: Draft, policy: Policy) -> Order:
        raise AssertionError

    async def cancel(self, order_id: int, *, expected: Expected = None) -> bool:
        raise AssertionError

    async def wait(self, order: Order, seconds: float) -> State:
        clock = lambda: self.now  # noqa: E731
        found = await until_settled(order, self, seconds=seconds, pauses=PAUSES, clock=clock, sleep=self.sleep)
        return found.state


async def test_it_looks_ever_less_often_until_the_order_is_settled() -> None:
    stage = Stage(at=14.0)
    assert await stage.wait(PENDING, 60.0) is State.CONFIRMED
    assert stage.looks == [1.0, 3.0, 7.0, 12.0, 17.0]


async def test_it_looks_once_more_when_the_time_is_over_and_tells_what_it_finds() -> None:
    stage = Stage(at=2.5)
    assert await stage.wait(PENDING, 2.5) is State.CONFIRMED
    assert stage.looks == [1.0, 2.5]
    assert await Stage().wait(PENDING, 2.5) is State.PENDING


@pytest.mark.parametrize(("order", "seconds"), [(replace(PENDING, state=State.REJECTED), 9.0), (PENDING, 0.0)])
async def test_where_there_is_nothing_to_wait_for_it_does_not_look(order: Order, seconds: float) -> None:
    stage = Stage()
    assert await stage.wait(order, seconds) is order.state
    assert (stage.looks, stage.now) == ([], 0.0)


async def test_a_database_that_goes_away_meanwhile_does_not_make_a_placed_order_fail() -> None:
    stage = Stage(away=True)
    assert await stage.wait(PENDING, 2.0) is State.PENDING
    assert stage.looks == [1.0, 2.0]
