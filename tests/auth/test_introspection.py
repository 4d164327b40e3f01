from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.auth import Principal, introspection
from app.auth.introspection import Introspector
from app.errors import InvalidToken, Unavailable
from tests.auth.clock import Clock


class Endpoint:
    def __init__(self) -> None:
        self.active: Any = True
        self.error: Exception | None = None
        self.asked: list[Mapping[str, str]] = []

    async def __call__(self, form: Mapping[str, str]) -> Mapping[str, Any]:
        self.asked.append(form)
        if self.error is not None:
            raise self.error
        return {"active": self.active}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def introspector(endpoint: Endpoint, clock: Clock) -> Introspector:
    return Introspector(endpoint, keep_seconds=5.0, clock=clock)


def bearer(clock: Clock, seconds: float = 600.0) -> Principal:
    return Principal("7", "web", expires_at=clock.now + seconds, session="s")


async def test_a_yes_counts_for_so_long_and_no_longer(
    introspector: Introspector, endpoint: Endpoint, clock: Clock
) -> None:
    for seconds, asked in ((0.0, 1), (4.9, 1), (0.1, 2)):
        clock.now += seconds
        await introspector.check("token", bearer(clock))
        assert len(endpoint.asked) == asked
    assert endpoint.asked[0] == {"token": "token", "token_type_hint": "access_token"}
    await introspector.check("another", bearer(clock))
    assert len(endpoint.asked) == 3


async def test_a_yes_never_counts_longer_than_the_token(
    introspector: Introspector, endpoint: Endpoint, clock: Clock
) -> None:
    await introspector.check("token", bearer(clock, 2.0))
    clock.now += 2.0
    await introspector.check("token", bearer(clock, 0.0))
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize("said", [False, None, "true", 1, {}])
async def test_only_a_yes_is_a_yes_and_a_no_is_not_kept(
    introspector: Introspector, endpoint: Endpoint, clock: Clock, said: Any
) -> None:
    endpoint.active = said
    for _ in range(2):
        with pytest.raises(InvalidToken, match="revoked"):
            await introspector.check("token", bearer(clock))
    assert len(endpoint.asked) == 2


async def test_while_the_issuer_is_away_nobody_knows(
    introspector: Introspector, endpoint: Endpoint, clock: Clock
) -> None:
    await introspector.check("token", bearer(clock))
    endpoint.error = Unavailable("away")
    await introspector.check("token", bearer(clock))
    clock.now += 5.0
    with pytest.raises(Unavailable):
        await introspector.check("token", bearer(clock))


async def test_so_many_are_kept_and_no_more(
    introspector: Introspector, endpoint: Endpoint, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspection, "_MOST_KEPT", 3)
    for number in range(10):
        await introspector.check(f"token {number}", bearer(clock))
    assert len(introspector._active_until) == 3
    await introspector.check("token 9", bearer(clock))
    assert len(endpoint.asked) == 10
