"""Calls by which peers know who calls: our own tokens, the user's, and those that a caller brings along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from app.errors import MeshError, NoCredentials
from app.mesh import Mesh
from tests.mesh.actors import http_peer, until
from tests.mesh.calling.scenes import Announce, Open, hello, replying


class Wallet:
    """Credentials of a test's own.

    Args:
        ready: whether tokens are at hand, or have to be fetched.
    """

    def __init__(self, *, ready: bool = True) -> None:
        self.ready = ready
        self.error: NoCredentials | None = None
        self.fetched: list[tuple[str, bool]] = []
        self.refusals: list[tuple[str, str]] = []

    def wanted(self, service: str) -> bool:
        return service != "identity"

    def at_hand(self, service: str, *, as_user: bool) -> str | None:
        if self.error is not None:
            raise self.error
        return self._token(service, as_user) if self.ready else None

    async def fetch(self, service: str, *, as_user: bool) -> str:
        await asyncio.sleep(0)
        self.fetched.append((service, as_user))
        return self._token(service, as_user)

    def refused(self, service: str, token: str) -> None:
        self.refusals.append((service, token))

    def _token(self, service: str, as_user: bool) -> str:
        return f"{'user' if as_user else 'own'}-for-{service}-{len(self.refusals)}"


async def streamed(mesh: Mesh, **options: Any) -> int:
    async with mesh.stream("GET", "users", "/", **options) as reply:
        async for _ in reply.chunks():
            pass
        return reply.status


async def test_without_credentials_calls_carry_what_they_are_given(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            await mesh.get("users", "/")
            await mesh.get("users", "/", headers={"Authorization": "Bearer x"})
            await streamed(mesh)
    assert [headers.get("authorization") for _, _, headers, _ in peer.requests] == [None, "Bearer x", None]


@pytest.mark.parametrize("ready", [True, False], ids=["at hand", "fetched"])
@pytest.mark.parametrize(("as_user", "whose"), [(False, "own"), (True, "user")])
async def test_a_call_carries_our_token_for_that_service_or_the_users(
    announce: Announce, open_caller: Open, ready: bool, as_user: bool, whose: str
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet(ready=ready)
            assert (await mesh.get("users", "/", headers={"X-Own": "1"}, as_user=as_user)).ok
            assert (await mesh.post("users", "/", json={"a": 1}, as_user=as_user)).ok
            assert await streamed(mesh, headers=[("x-a", "1"), ("x-a", "2")], as_user=as_user) == 200
    assert {headers["authorization"] for _, _, headers, _ in peer.requests} == {f"Bearer {whose}-for-users-0"}
    assert peer.requests[0][2]["x-own"] == "1"
    assert peer.requests[1][3] == b'{"a":1}'
    assert wallet.fetched == ([] if ready else [("users", as_user)] * 3)


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
async def test_what_a_caller_brings_along_goes_before(announce: Announce, open_caller: Open, name: str) -> None:
    async with http_peer(replying(401)) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet()
            await mesh.get("users", "/", headers={name: "Bearer given"}, as_user=True)
            await streamed(mesh, headers=[(name, "Bearer given")])
    assert [headers["authorization"] for _, _, headers, _ in peer.requests] == ["Bearer given"] * 2
    # It is not ours to replace.
    assert wallet.refusals == []


async def test_a_token_that_a_peer_refuses_is_given_back_and_the_next_call_has_another(
    announce: Announce, open_caller: Open
) -> None:
    async with http_peer(replying(401)) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet()
            assert (await mesh.get("users", "/")).status == 401
            assert await streamed(mesh) == 401
            assert (await mesh.get("users", "/", as_user=True)).status == 401
    assert wallet.refusals == [
        ("users", "own-for-users-0"),
        ("users", "own-for-users-1"),
        ("users", "user-for-users-2"),
    ]
    assert len(peer.requests) == 3


@pytest.mark.parametrize("status", [200, 403, 404, 500])
async def test_only_a_401_is_a_refusal_of_the_token(announce: Announce, open_caller: Open, status: int) -> None:
    async with http_peer(replying(status)) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet()
            await mesh.post("users", "/")
            await streamed(mesh)
    assert wallet.refusals == []


async def test_whoever_gives_the_tokens_is_called_without_one(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url, "identity-1", service="identity")
        async with open_caller() as mesh:
            mesh.credentials = Wallet()
            await mesh.post("identity", "/oauth/token", content=b"grant_type=client_credentials")
    assert "authorization" not in peer.requests[0][2]


async def test_without_a_token_nothing_is_sent_and_it_is_an_error_of_the_mesh(
    announce: Announce, open_caller: Open
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet()
            wallet.error = NoCredentials("The issuer gives no token for users", retry_after=1.0)
            for call in (mesh.get("users", "/"), mesh.get("users", "/", as_user=True), streamed(mesh)):
                with pytest.raises(MeshError) as refused:
                    await call
                assert (refused.value.status, refused.value.code) == (503, "no_credentials")
                assert refused.value.retry_after == 1.0
            assert mesh.balancer.in_flight == 0
    assert peer.requests == []


async def test_every_attempt_of_a_call_carries_it(announce: Announce, open_caller: Open) -> None:
    answers = iter([503, 200])

    async def at_last(request: web.BaseRequest) -> web.StreamResponse:
        return await replying(next(answers))(request)

    async with http_peer(at_last) as peer:
        announce(peer.url, "users-1")
        announce(peer.url, "users-2")
        async with open_caller() as mesh:
            await until(lambda: len(mesh.directory.ready("users")) == 2)
            mesh.credentials = Wallet()
            assert (await mesh.get("users", "/")).ok
    assert [headers["authorization"] for _, _, headers, _ in peer.requests] == ["Bearer own-for-users-0"] * 2


async def test_a_shared_answer_and_a_stale_one_are_never_another_users(announce: Announce, open_caller: Open) -> None:
    failing = False

    async def whose(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"for": request.headers["authorization"]}, status=500 if failing else 200)

    class Users(Wallet):
        user = "ada"

        def at_hand(self, service: str, *, as_user: bool) -> str | None:
            return self.user

    async with http_peer(whose) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = users = Users()

            async def ask(user: str) -> Any:
                users.user = user
                return await mesh.get("users", "/me", as_user=True, share=True, stale_seconds=60)

            ada = asyncio.create_task(ask("ada"))
            await asyncio.sleep(0)
            bob = asyncio.create_task(ask("bob"))
            assert [reply.json()["for"] for reply in await asyncio.gather(ada, bob)] == ["Bearer ada", "Bearer bob"]
            failing = True
            assert (await ask("ada")).json() == {"for": "Bearer ada"}
            assert (await ask("bob")).json() == {"for": "Bearer bob"}
            assert (await ask("eve")).status == 500


async def test_a_stale_answer_to_ourselves_outlives_our_token(announce: Announce, open_caller: Open) -> None:
    failing = False

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({}, status=500 if failing else 200)

    async with http_peer(answer) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet()
            assert (await mesh.get("users", "/", stale_seconds=60)).fallback == ""
            failing = True
            wallet.refused("users", "renewed meanwhile")
            assert (await mesh.get("users", "/", stale_seconds=60)).fallback == "stale"


async def test_what_stands_in_for_a_failure_stands_in_for_a_missing_token(
    announce: Announce, open_caller: Open
) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = wallet = Wallet()
            good = await mesh.get("users", "/", stale_seconds=60)
            wallet.error = NoCredentials("no token", retry_after=1.0)
            told: list[MeshError] = []

            def instead(error: MeshError) -> Any:
                told.append(error)
                return good

            assert (await mesh.get("users", "/", stale_seconds=60)).fallback == "stale"
            assert (await mesh.get("users", "/other", fallback=instead)).fallback == "function"
            # What we were told ourselves is not for a user of whom nobody knows who it is.
            assert (
                await mesh.get("users", "/", as_user=True, stale_seconds=60, fallback=instead)
            ).fallback == "function"
            with pytest.raises(NoCredentials):
                await mesh.get("users", "/", as_user=True, stale_seconds=60)
    assert [error.code for error in told] == ["no_credentials"] * 2
    assert len(peer.requests) == 1


async def _body() -> AsyncIterator[bytes]:
    yield b"piece"


async def test_a_streamed_body_is_not_begun_before_the_token_is_there(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        announce(peer.url)
        async with open_caller() as mesh:
            mesh.credentials = Wallet(ready=False)
            async with mesh.stream("POST", "users", "/", content=_body()) as reply:
                assert reply.status == 200
    assert peer.requests[0][3] == b"piece"
    assert peer.requests[0][2]["authorization"] == "Bearer own-for-users-0"
