from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from app.auth import outbound as room
from app.auth.outbound import Outbound
from app.errors import NoCredentials, Unavailable
from tests.auth.clock import Clock


class Endpoint:
    """The token endpoint: every token is another; it may be slow, away, or talk nonsense."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, str]] = []
        self.gate: asyncio.Event | None = None
        self.error: Exception | None = None
        self.answer: Mapping[str, Any] | None = None

    async def __call__(self, form: Mapping[str, str]) -> Mapping[str, Any]:
        self.asked.append(form)
        number = len(self.asked)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.answer if self.answer is not None else {"access_token": f"token {number}", "expires_in": 100}


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class Requests:
    """Whose request is being served."""

    token: str | None = None

    def __call__(self) -> str | None:
        return self.token


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def serving() -> Requests:
    return Requests()


@pytest.fixture
async def tokens(endpoint: Endpoint, clock: Clock, serving: Requests) -> AsyncIterator[Outbound]:
    async with aclosing(Outbound(endpoint, issuer="identity", user_token=serving, clock=clock)) as opened:
        yield opened


async def own(tokens: Outbound, service: str = "users") -> str:
    return await tokens.fetch(service, as_user=False)


async def test_a_token_is_fetched_once_for_each_service_and_then_at_hand(tokens: Outbound, endpoint: Endpoint) -> None:
    assert tokens.at_hand("users", as_user=False) is None
    assert await own(tokens) == await own(tokens) == tokens.at_hand("users", as_user=False) == "token 1"
    assert await own(tokens, "inventory") == "token 2"
    assert endpoint.asked == [
        {"grant_type": "client_credentials", "audience": "users"},
        {"grant_type": "client_credentials", "audience": "inventory"},
    ]


def test_the_issuer_itself_is_called_without_one(tokens: Outbound) -> None:
    assert not tokens.wanted("identity")
    assert tokens.wanted("users")


async def test_a_hundred_who_call_at_once_share_a_flight_and_one_who_leaves_harms_nobody(
    tokens: Outbound, endpoint: Endpoint
) -> None:
    endpoint.gate = asyncio.Event()
    waiting = [asyncio.create_task(own(tokens)) for _ in range(100)]
    await settled(lambda: endpoint.asked)
    waiting[0].cancel()
    endpoint.gate.set()
    assert set(await asyncio.gather(*waiting[1:])) == {"token 1"}
    assert len(endpoint.asked) == 1


async def test_it_is_renewed_in_the_background_when_four_fifths_are_over(
    tokens: Outbound, endpoint: Endpoint, clock: Clock
) -> None:
    await own(tokens)
    clock.now += 79.9
    await own(tokens)
    assert len(endpoint.asked) == 1
    endpoint.gate = asyncio.Event()
    clock.now += 0.1
    for _ in range(20):
        assert await own(tokens) == "token 1"
    await settled(lambda: len(endpoint.asked) == 2)
    endpoint.gate.set()
    await settled(lambda: tokens.at_hand("users", as_user=False) == "token 2")
    assert len(endpoint.asked) == 2


async def test_a_token_is_kept_while_the_issuer_is_away_and_not_in_its_last_moments(
    tokens: Outbound, endpoint: Endpoint, clock: Clock
) -> None:
    await own(tokens)
    endpoint.error = Unavailable("away")
    for _ in range(14):
        clock.now += 6.7
        assert await own(tokens) == "token 1"
        await settled(lambda: not tokens._flights)
    assert len(endpoint.asked) == 4
    clock.now += 1.3
    with pytest.raises(NoCredentials) as refused:
        await own(tokens)
    assert (refused.value.status, refused.value.retry_after) == (503, 1.0)


async def test_an_issuer_that_gives_none_is_left_alone_for_a_moment(
    tokens: Outbound, endpoint: Endpoint, clock: Clock
) -> None:
    endpoint.error = Unavailable("away")
    for _ in range(50):
        with pytest.raises(NoCredentials):
            await own(tokens)
    assert len(endpoint.asked) == 1
    clock.now += 0.999
    with pytest.raises(NoCredentials):
        await own(tokens)
    endpoint.error = None
    clock.now += 0.001
    assert await own(tokens) == "token 2"


async def test_many_who_wait_hear_of_one_refusal(tokens: Outbound, endpoint: Endpoint) -> None:
    endpoint.error, endpoint.gate = Unavailable("no"), asyncio.Event()
    waiting = [asyncio.create_task(own(tokens)) for _ in range(100)]
    await settled(lambda: endpoint.asked)
    endpoint.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in found} == {NoCredentials}
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "answer", [{}, {"access_token": None}, {"access_token": 7}, {"access_token": "t", "expires_in": []}]
)
async def test_an_answer_that_is_no_token_is_a_refusal(
    tokens: Outbound, endpoint: Endpoint, answer: Mapping[str, Any]
) -> None:
    endpoint.answer = answer
    with pytest.raises(NoCredentials):
        await own(tokens)


async def test_a_token_that_was_refused_is_not_used_again(tokens: Outbound, clock: Clock) -> None:
    await own(tokens)
    await own(tokens, "inventory")
    clock.now += 1.0
    tokens.refused("users", "token 1")
    assert tokens.at_hand("users", as_user=False) is None
    assert tokens.at_hand("inventory", as_user=False) == "token 2"
    assert await own(tokens) == "token 3"
    # The word of a call that began before is late: the new one stays.
    tokens.refused("users", "token 1")
    assert tokens.at_hand("users", as_user=False) == "token 3"


async def test_a_peer_that_refuses_them_all_does_not_have_the_issuer_asked_with_every_call(
    tokens: Outbound, endpoint: Endpoint, clock: Clock
) -> None:
    for _ in range(100):
        tokens.refused("users", await own(tokens))
        clock.now += 0.1
    assert len(endpoint.asked) <= 11


async def test_each_user_has_a_token_by_exchange_and_never_anothers(
    tokens: Outbound, endpoint: Endpoint, serving: Requests
) -> None:
    got = {}
    for user in ("ada", "bob", "ada"):
        serving.token = user
        got[user] = await tokens.fetch("users", as_user=True)
    assert got == {"ada": "token 1", "bob": "token 2"}
    assert endpoint.asked[0] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": "users",
        "subject_token": "ada",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    assert await own(tokens) == "token 3"
    assert "ada" not in repr(vars(tokens))
    assert tokens.describe()["exchanged_tokens"] == 2


async def test_in_a_users_name_it_needs_a_user(tokens: Outbound, endpoint: Endpoint) -> None:
    with pytest.raises(NoCredentials, match="no user"):
        tokens.at_hand("users", as_user=True)
    with pytest.raises(NoCredentials, match="no user"):
        await tokens.fetch("users", as_user=True)
    assert endpoint.asked == []


async def test_so_many_are_kept_and_no_more(
    tokens: Outbound, serving: Requests, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(room, "_MOST_KEPT", 3)
    for number in range(10):
        serving.token = f"user {number}"
        await tokens.fetch("users", as_user=True)
    assert len(tokens._tokens) == 3
    clock.now += 99
    await own(tokens)
    assert len(tokens._tokens) == 1


async def test_those_who_get_none_are_forgotten_as_well(
    tokens: Outbound, endpoint: Endpoint, serving: Requests, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(room, "_MOST_KEPT", 3)
    endpoint.error = Unavailable("no")
    for number in range(20):
        serving.token = f"user {number}"
        with pytest.raises(NoCredentials):
            await tokens.fetch("users", as_user=True)
        clock.now += 0.6
    assert len(tokens._not_before) <= 3


async def test_who_closes_it_leaves_nothing_under_way(tokens: Outbound, endpoint: Endpoint) -> None:
    endpoint.gate = asyncio.Event()
    waiting = asyncio.create_task(own(tokens))
    await settled(lambda: endpoint.asked)
    await tokens.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert repr(tokens) == "<Outbound, 0 tokens, 0 being fetched>"
