"""The authorization endpoint: what is granted, what is refused, and who hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from app.services.identity.client import digest
from tests.services.identity.parties import CALLBACK, ISSUER, LOGGED_IN_AT, Identity, query_of, redemption


async def test_a_yes_leads_back_to_the_client_with_a_code(identity: Identity) -> None:
    answer = await identity.authorize()
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    assert answer.headers["cache-control"] == "no-store"
    query = query_of(answer.headers["location"])
    assert query == {"code": query["code"], "state": "xyz", "iss": ISSUER}
    saved = await identity.tokens.find_code(digest(query["code"]))
    assert saved is not None
    assert (saved.session_digest, saved.auth_time, saved.audience) == ("5" * 64, LOGGED_IN_AT, "mesh")
    tokens = await identity.ask(redemption(query["code"]))
    assert (await identity.claims(tokens["id_token"], kind="JWT"))["nonce"] == "n-1"


async def test_a_no_leads_back_to_the_client_too(identity: Identity) -> None:
    query = query_of((await identity.authorize(deny=True)).headers["location"])
    assert (query["error"], query["state"], query["iss"]) == ("access_denied", "xyz", ISSUER)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    ({"code_challenge": None}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge": "x" * 42}, "invalid_request"),
    ({"code_challenge": "x" * 43 + "\n"}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code id_token"}, "unsupported_response_type"),
    ({"response_type": 'a"\u00fc'}, "unsupported_response_type"),
    ({"response_type": None}, "invalid_request"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"scope": "orders:read nonsense"}, "invalid_scope"),
    ({"scope": "inventory:reserve"}, "invalid_scope"),
    ({"scope": "users:admin"}, "invalid_scope"),
    ({"audience": "inventory"}, "invalid_target"),
    ({"nonce": "n" * 256}, "invalid_request"),
    ({"max_age": "soon"}, "invalid_request"),
    ({"prompt": "none login"}, "invalid_request"),
    ({"request": "x"}, "request_not_supported"),
    ({"request_uri": "x"}, "request_uri_not_supported"),
]


async def test_what_is_wrong_is_told_to_the_client(identity: Identity, subtests: pytest.Subtests) -> None:
    for query, error in WRONG:
        with subtests.test(**query):
            answer = await identity.authorize(**query)
            assert answer.status_code == 302, answer.text
            assert answer.headers["location"].startswith(f"{CALLBACK}?")
            told = query_of(answer.headers["location"])
            assert (told["error"], told["iss"]) == (error, ISSUER)
            assert told["state"] == "xyz" or error.startswith(("unsupported", "invalid_request"))
            assert "code" not in told


ELSEWHERE: list[dict[str, Any]] = [
    {"redirect_uri": None},
    {"redirect_uri": "http://127.0.0.1:54321/callback/more"},
    {"redirect_uri": "http://127.0.0.1:54321@evil.example/callback"},
    {"redirect_uri": "http://localhost:54321/callback"},
    {"redirect_uri": 'https://evil.example/"\u00fc'},
    {"redirect_uri": "https://evil.example/", "response_type": "token"},
    {"client_id": "nobody"},
    {"client_id": None},
    {"client_id": "nobody", "response_type": "token"},
    {"client_id": "demo-client"},
    {"state": ["a", "b"]},
    {"scope": "\0"},
]


async def test_nobody_is_sent_to_an_address_that_is_not_the_clients(
    identity: Identity, subtests: pytest.Subtests
) -> None:
    for query in ELSEWHERE:
        with subtests.test(**query):
            answer = await identity.authorize(**query)
            assert answer.status_code == 400, answer.headers
            assert "location" not in answer.headers
            assert answer.json()["error"] in ("invalid_request", "invalid_client", "unsupported_response_type")


async def test_the_pages_hear_what_is_asked_for(identity: Identity) -> None:
    answer = await identity.authorize(user=None, prompt="login", max_age=60)
    assert (answer.status_code, answer.text) == (401, "log in, login, 60")
    told = query_of((await identity.authorize(user=None, prompt="none")).headers["location"])
    assert (told["error"], told["state"]) == ("login_required", "xyz")


async def test_a_user_gives_away_no_more_than_they_have(identity: Identity) -> None:
    wanted = "orders:read users:admin inventory:write"
    for user, granted in (("user7", "orders:read"), ("admin", wanted)):
        query = query_of((await identity.authorize(user=user, scope=wanted)).headers["location"])
        assert (await identity.ask(redemption(query["code"])))["scope"] == granted


async def test_a_state_of_any_letters_comes_back_as_it_was(identity: Identity) -> None:
    state = 'a b&c=d"\u00fc#'
    assert query_of((await identity.authorize(state=state)).headers["location"])["state"] == state
    assert query_of((await identity.authorize(state=state, deny=True)).headers["location"])["state"] == state
