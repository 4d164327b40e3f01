"""What is tried again, at whom and how often, over real sockets that are refused, cut and left hanging."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from app import context
from app.errors import DeadlineExceeded, PeerUnreachable
from app.mesh.registry.runner import BlockingRegistry
from tests.mesh.actors import (
    Answer,
    RawAnswer,
    Witness,
    beat,
    fast_settings,
    http_peer,
    instance,
    mesh_of,
    raw_peer,
    refused_url,
    until,
)  # fmt: skip
from tests.mesh.calling.scenes import (
    Announce,
    Open,
    answer,
    connections_in_use,
    cut,
    decided,
    forever,
    hello,
    key_for,
    outcomes,
    replying,
    serving,
    unavailable,
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_refuses_the_connection_is_passed_over_whatever_the_method(
    announce: Announce, open_caller: Open, witness: Witness, method: str
) -> None:
    async with http_peer(hello) as peer:
        announce(await refused_url(), "dead")
        announce(peer.url, "alive")
        async with open_caller() as mesh:
            while all(attempt.instance != "dead" for attempt in witness.attempts):
                assert (await mesh.request(method, "users", "/")).ok
    refused, then = witness.attempts[-2:]
    assert (refused.instance, refused.error, refused.retrying) == ("dead", "peer_unreachable", True)
    assert (then.instance, then.number, then.status) == ("alive", 2, 200)
    assert peer.requests[-1][2]["x-mesh-attempt"] == "2"


async def test_three_that_have_just_died_do_not_hide_the_one_that_lives(announce: Announce, open_caller: Open) -> None:
    async with http_peer(hello) as peer:
        for id_ in ("dead-1", "dead-2", "dead-3"):
            announce(await refused_url(), id_)
        announce(peer.url, "alive")
        async with open_caller() as mesh:
            assert all([(await mesh.post("users", "/")).ok for _ in range(20)])


async def test_if_nobody_accepts_the_error_says_that_nothing_was_sent(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    announce(await refused_url(), "dead")
    async with open_caller() as mesh:
        with pytest.raises(PeerUnreachable, match="users, instance dead") as raised:
            await mesh.post("users", "/")
        assert (raised.value.sent, raised.value.retry_after) == (False, 1.0)
    assert [attempt.number for attempt in witness.attempts] == [1, 2, 3, 4]


async def test_no_retries_means_one_attempt(announce: Announce, open_caller: Open, witness: Witness) -> None:
    announce(await refused_url(), "dead")
    async with open_caller(retries=0) as mesh:
        with pytest.raises(PeerUnreachable):
            await mesh.get("users", "/")
    assert len(witness.attempts) == 1


@pytest.mark.parametrize(
    ("method", "key", "attempts"),
    [("GET", None, 2), ("PUT", None, 2), ("DELETE", None, 2), ("POST", "k", 2), ("POST", None, 1), ("PATCH", None, 1)],
)
async def test_a_request_that_was_sent_and_cut_is_repeated_only_if_that_is_safe(
    announce: Announce, open_caller: Open, witness: Witness, method: str, key: str | None, attempts: int
) -> None:
    async with raw_peer(cut) as one, raw_peer(cut) as other:
        announce(one, "one")
        announce(other, "other")
        async with open_caller() as mesh:
            with pytest.raises(PeerUnreachable) as raised:
                await mesh.request(method, "users", "/", idempotency_key=key)
            assert raised.value.sent
            assert mesh.balancer.in_flight == 0
    assert [attempt.number for attempt in witness.attempts] == list(range(1, attempts + 1))
    assert len({attempt.instance for attempt in witness.attempts}) == attempts


@pytest.mark.parametrize(
    ("reply", "statuses", "of_a_post"),
    [
        (replying(503), [503, 200], [503]),
        (replying(502), [502, 200], [502]),
        (replying(504), [504, 200], [504]),
        (replying(429, retry_after="1"), [429, 200], [429]),
        (replying(429), [429], [429]),
        (replying(500), [500], [500]),
        (replying(501), [501], [501]),
        (replying(404, retry_after="1"), [404], [404]),
        (replying(503, x_mesh_unprocessed="overloaded", retry_after="1"), [503, 200], [503, 200]),
        (replying(421, x_mesh_unprocessed="misdirected"), [421, 200], [421, 200]),
        (replying(421), [421, 200], [421, 200]),
    ],
)
async def test_what_a_reply_says_decides_whether_another_peer_is_asked(
    announce: Announce, open_caller: Open, witness: Witness, reply: Answer, statuses: list[int], of_a_post: list[int]
) -> None:
    async with http_peer(reply) as first, http_peer(hello) as second:
        announce(first.url, "first")
        announce(second.url, "second")
        for method, expected in (("GET", statuses), ("POST", of_a_post)):
            async with open_caller() as mesh:
                witness.attempts.clear()
                await mesh.request(method, "users", "/", sticky=key_for(mesh, "first"))
                assert [attempt.status for attempt in witness.attempts] == expected


async def test_an_idempotency_key_makes_a_post_safe_to_repeat(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(unavailable) as first, http_peer(hello) as second:
        announce(first.url, "first")
        announce(second.url, "second")
        async with open_caller() as mesh:
            assert (await mesh.post("users", "/", idempotency_key="k", sticky=key_for(mesh, "first"))).ok
    assert outcomes(witness) == [(1, 503, ""), (2, 200, "")]


async def test_a_reply_from_somebody_else_than_was_meant_is_nobodys_reply(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(replying(421, x_mesh_unprocessed="misdirected")) as stranger:
        announce(stranger.url, "gone")
        async with open_caller() as mesh:
            with pytest.raises(PeerUnreachable, match="somebody else's") as raised:
                await mesh.post("users", "/")
            assert not raised.value.sent
            with pytest.raises(PeerUnreachable):
                async with mesh.stream("GET", "users", "/"):
                    pass
            assert mesh.balancer.in_flight == 0
            assert connections_in_use(mesh) == 0
            (peer,) = mesh.balancer.explain("users")
            assert "misdirected" in peer.state
    assert [headers["x-mesh-target"] for _, _, headers, _ in stranger.requests] == ["gone", "gone"]


async def test_a_strangers_reply_holds_no_connection_however_long_it_takes(
    announce: Announce, open_caller: Open
) -> None:
    endless = answer(b"HTTP/1.1 421 Misdirected\r\ncontent-length: 10\r\n\r\nabc", close=False)
    async with raw_peer(endless) as url:
        announce(url)
        async with open_caller() as mesh:
            with pytest.raises(PeerUnreachable):
                async with mesh.stream("GET", "users", "/"):
                    pass
            assert connections_in_use(mesh) == 0


async def test_who_says_that_it_drains_is_asked_no_more_while_there_is_another(
    announce: Announce, open_caller: Open
) -> None:
    async with http_peer(replying(200, x_mesh_draining="1")) as leaving, http_peer(hello) as staying:
        announce(leaving.url, "leaving")
        announce(staying.url, "staying")
        async with open_caller() as mesh:
            await mesh.get("users", "/", sticky=key_for(mesh, "leaving"))
            assert ["draining" in peer.state for peer in mesh.balancer.explain("users")] == [True, False]
            for _ in range(20):
                await mesh.get("users", "/")
    assert (len(leaving.requests), len(staying.requests)) == (1, 20)


# ------------------------------------------------------------------------------------------ peers that fall silent


@pytest.mark.parametrize("how", ["settings", "option", "stream"])
async def test_a_silent_peer_costs_an_idempotent_call_a_part_of_its_time_only(
    announce: Announce, open_caller: Open, witness: Witness, how: str
) -> None:
    async with http_peer(forever) as silent, http_peer(hello) as other:
        announce(silent.url, "silent")
        announce(other.url, "other")
        async with open_caller(attempt_seconds=1.0 if how == "option" else 0.1) as mesh:
            key = key_for(mesh, "silent")
            if how == "stream":
                async with mesh.stream("GET", "users", "/", sticky=key) as streamed:
                    assert streamed.status == 200
            else:
                reply = await mesh.get("users", "/", sticky=key, attempt_timeout=0.1 if how == "option" else None)
                assert reply.ok
            await until(lambda: silent.waiting == 0)
            assert mesh.balancer.in_flight == 0
    assert outcomes(witness) == [(1, 0, "deadline_exceeded"), (2, 200, "")]
    # Both are told what is left of the whole: who is silent may be waited for after all.
    assert int(silent.requests[0][2]["x-request-timeout-ms"]) > 5000
    assert int(other.requests[0][2]["x-request-timeout-ms"]) > 5000


@pytest.mark.parametrize(
    ("method", "options", "alone"),
    [("POST", {}, False), ("GET", {"attempt_timeout": float("inf")}, False), ("GET", {}, True)],
    ids=["it is not idempotent", "the caller does not want it", "there is nobody else"],
)
async def test_a_silent_peer_is_waited_for_where(
    announce: Announce, open_caller: Open, witness: Witness, method: str, options: dict[str, Any], alone: bool
) -> None:
    async with http_peer(forever) as silent, http_peer(hello) as other:
        announce(silent.url, "silent")
        if not alone:
            announce(other.url, "other")
        async with open_caller(attempt_seconds=0.05) as mesh:
            with pytest.raises(DeadlineExceeded, match=r"users, instance silent: no reply within 0\.[1-4]\d s"):
                await mesh.request(method, "users", "/", timeout=0.4, sticky=key_for(mesh, "silent"), **options)
    assert outcomes(witness) == [(1, 0, "deadline_exceeded")]


async def test_a_silent_peer_is_waited_for_when_the_budget_is_spent(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(forever) as silent, http_peer(hello) as other:
        announce(silent.url, "silent")
        announce(other.url, "other")
        async with open_caller(attempt_seconds=0.05, retry_share=0, retries_per_second=0) as mesh:
            with pytest.raises(DeadlineExceeded, match=r"no reply within 0\.[1-4]\d s"):
                await mesh.get("users", "/", timeout=0.4, sticky=key_for(mesh, "silent"))
    assert other.requests == []


async def test_who_was_to_be_given_up_is_waited_for_when_others_have_spent_the_budget_meanwhile(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    gate = asyncio.Event()

    async def slow_answer(request: web.BaseRequest) -> web.Response:
        await gate.wait()
        return web.json_response({})

    async with http_peer(slow_answer) as slow, http_peer(hello) as other:
        announce(slow.url, "slow")
        announce(other.url, "other")
        # One repetition in ten seconds, and both calls begin before it is spent.
        async with open_caller(attempt_seconds=0.1, retry_share=0, retries_per_second=0.1) as mesh:
            key = key_for(mesh, "slow")
            calls = [asyncio.ensure_future(mesh.get("users", "/", sticky=key)) for _ in range(2)]
            await until(lambda: any(call.done() for call in calls))
            gate.set()
            assert [reply.status for reply in await asyncio.gather(*calls)] == [200, 200]
    assert len(other.requests) == 1
    assert sorted(outcomes(witness)) == [(1, 0, "deadline_exceeded"), (1, 200, ""), (2, 200, "")]


async def test_who_answers_others_meanwhile_is_busy_and_not_silent(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    gate = asyncio.Event()

    async def busy_answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/queued":
            await gate.wait()
        return web.json_response({})

    async with http_peer(busy_answer) as busy, http_peer(hello) as other:
        announce(busy.url, "busy")
        announce(other.url, "other")
        # So long that even a machine that stands still for a while gets one answer from the peer before.
        async with open_caller(attempt_seconds=1.5) as mesh:
            key = key_for(mesh, "busy")
            queued = asyncio.ensure_future(mesh.get("users", "/queued", sticky=key))
            await until(lambda: busy.waiting)
            reprieved = time.monotonic() + 2.0
            while time.monotonic() < reprieved:
                assert (await mesh.get("users", "/", sticky=key)).ok
            gate.set()
            assert (await queued).ok
    assert other.requests == []


async def test_who_has_begun_to_answer_has_the_whole_time_for_the_rest(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async def slowly(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(5):
            await response.write(b".")
            await asyncio.sleep(0.15)
        return response

    async with http_peer(slowly) as slow, http_peer(hello) as other:
        announce(slow.url, "slow")
        announce(other.url, "other")
        async with open_caller(attempt_seconds=0.5) as mesh:
            assert (await mesh.get("users", "/", sticky=key_for(mesh, "slow"))).body == b"....."
    assert outcomes(witness) == [(1, 200, "")]


# ------------------------------------------------------------------------------------------ one layer, one budget


async def test_on_behalf_of_a_repeated_request_nothing_is_repeated(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(unavailable) as one, http_peer(unavailable) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller() as mesh:
            with context.activate(context.Context("r", attempt=2)):
                await mesh.get("users", "/")
            assert outcomes(witness) == [(1, 503, "")]
            with context.activate(context.Context("r", attempt=1)):
                await mesh.get("users", "/")
    assert outcomes(witness)[1:] == [(1, 503, ""), (2, 503, "")]


async def test_a_503_of_the_only_instance_is_its_reply(announce: Announce, open_caller: Open, witness: Witness) -> None:
    async with http_peer(unavailable) as busy:
        announce(busy.url)
        async with open_caller() as mesh:
            reply = await mesh.get("users", "/")
            assert (reply.status, reply.retry_after_seconds) == (503, 7.0)
    assert len(witness.attempts) == 1


async def test_a_connection_that_the_peer_closed_while_it_was_idle_costs_a_get_nothing_and_fails_a_post(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The second request on a connection finds it closed, as if its idle time had just run out.
        if writer in writers:
            writer.close()
            return
        writers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with raw_peer(keep) as url:
        announce(url)
        async with open_caller() as mesh:
            await mesh.get("users", "/")
            assert (await mesh.get("users", "/")).ok
            assert len(writers) == 2
            with pytest.raises(PeerUnreachable) as raised:
                await mesh.post("users", "/")
            assert raised.value.sent
    assert outcomes(witness)[1:] == [(1, 0, "peer_unreachable"), (2, 200, ""), (1, 0, "peer_unreachable")]


async def test_on_behalf_of_a_repeated_request_who_refuses_is_still_passed_over(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    async with http_peer(hello) as peer:
        announce(await refused_url(), "dead")
        announce(peer.url, "alive")
        async with open_caller() as mesh:
            with serving(attempt=2):
                assert (await mesh.post("users", "/", sticky=key_for(mesh, "dead"))).ok


@pytest.mark.parametrize(
    ("reply", "stopped_by_the_budget"), [(unavailable, True), (replying(503, x_mesh_unprocessed="overloaded"), False)]
)
async def test_a_service_that_always_fails_gets_little_more_than_what_it_is_asked(
    announce: Announce, open_caller: Open, witness: Witness, reply: Answer, stopped_by_the_budget: bool
) -> None:
    switched_off = {"breaker": {"enabled": False}, "balancing": {"ejection": False}}
    async with http_peer(reply) as one, http_peer(reply) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller(others=switched_off, retries_per_second=1) as mesh:
            started = time.monotonic()
            for _ in range(16):
                await asyncio.gather(*(mesh.get("users", "/") for _ in range(25)))
            seconds = time.monotonic() - started
    # A fifth of the calls, one a second, and what the window of ten seconds had in store.
    assert 400 < len(witness.attempts) <= 400 + 80 + (seconds + 11)
    # Where all say that they are too busy, hardly anything is repeated in the first place.
    assert ("no_budget" in decided(witness, "retry")) is stopped_by_the_budget


async def test_a_request_that_is_not_idempotent_reaches_nobody_twice(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    reached = Counter[str]()

    def counting(name: str) -> RawAnswer:
        async def count_and_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached[name] += 1
            writer.transport.abort()

        return count_and_cut

    async with raw_peer(counting("one")) as one, raw_peer(counting("other")) as other:
        announce(one, "one")
        announce(other, "other")
        async with open_caller() as mesh:
            for number in range(1, 6):
                with pytest.raises(PeerUnreachable) as raised:
                    await mesh.post("users", "/")
                assert (raised.value.sent, raised.value.status, sum(reached.values())) == (True, 503, number)


async def test_a_name_that_resolves_outside_the_allowed_networks_is_not_connected_to(
    registry: BlockingRegistry, namespace: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        address = {"evil.example": "127.0.0.2", "users.svc": "127.0.0.1"}[host]
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    narrow = fast_settings(namespace, registry={"allowed_networks": ["127.0.0.1/32"]})
    async with http_peer(hello, host="0.0.0.0") as peer, mesh_of(narrow, redis_url) as mesh:
        port = peer.url.rpartition(":")[2]
        beat(registry, narrow, instance(id="evil", url=f"http://evil.example:{port}"))
        await until(lambda: mesh.directory.ready("users"))
        with pytest.raises(PeerUnreachable) as raised:
            await mesh.get("users", "/", timeout=5)
        assert not raised.value.sent
        beat(registry, narrow, instance(id="good", url=f"http://users.svc:{port}"))
        await until(lambda: len(mesh.directory.ready("users")) == 2)
        assert (await mesh.get("users", "/")).ok


async def test_who_has_left_a_silent_peer_goes_to_the_other_even_if_that_one_does_badly_meanwhile(
    announce: Announce, open_caller: Open, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with http_peer(forever) as silent, http_peer(hello) as other:
        announce(silent.url, "silent")
        announce(other.url, "other")
        async with open_caller(attempt_seconds=0.1) as mesh:
            monkeypatch.setattr(mesh._attempts, "has_others", lambda call: not call.paid)
            assert (await mesh.get("users", "/", sticky=key_for(mesh, "silent"))).ok
    assert outcomes(witness) == [(1, 0, "deadline_exceeded"), (2, 200, "")]


async def test_a_burst_that_both_peers_answer_late_is_answered_although_it_left_one_for_the_other(
    announce: Announce, open_caller: Open, witness: Witness
) -> None:
    """Whoever leaves a silent peer has somebody to go to, whatever the others that left have made of that one."""
    gate = asyncio.Event()

    async def late(request: web.BaseRequest) -> web.Response:
        await gate.wait()
        return web.json_response({})

    async with http_peer(late) as one, http_peer(late) as other:
        announce(one.url, "one")
        announce(other.url, "other")
        async with open_caller(attempt_seconds=0.1) as mesh:
            calls = [asyncio.ensure_future(mesh.get("users", "/")) for _ in range(30)]
            await until(lambda: witness.attempts)
            gate.set()
            assert [reply.status for reply in await asyncio.gather(*calls)] == [200] * 30
