"""Peers that the registry does not vouch for any more: evidence for and against them, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from ipaddress import ip_network

import pytest
import redis
from aiohttp import web
from aiohttp.abc import AbstractResolver

from app.mesh.calling.transport import GuardedResolver
from app.mesh.keys import Keys
from app.mesh.registry.directory import Directory
from app.mesh.registry.examiner import Suspecting
from app.mesh.registry.inquiry import Answer, Inquiry
from app.mesh.registry.probe import HttpProbe
from app.mesh.registry.record import Instance
from app.mesh.registry.runner import BlockingRegistry
from app.mesh.registry.view import Evidence
from app.settings import Settings
from tests.mesh.actors import (
    Line,
    Witness,
    beat,
    http_peer,
    instance,
    mesh_of,
    raw_peer,
    redis_line,
    refused_url,
    until,
)

NETWORKS = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


# ------------------------------------------------------------------------------------------ the probe


@pytest.fixture
async def probe() -> AsyncIterator[HttpProbe]:
    async with HttpProbe(GuardedResolver(NETWORKS), timeout_seconds=1.0) as made:
        yield made


def names_itself(as_: str | None, *, status: int = 200) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={} if as_ is None else {"x-mesh-instance": as_})

    return answer


@pytest.mark.parametrize(
    ("name", "status", "answer"),
    [
        ("users-1", 200, "alive"), ("users-1", 503, "alive"), ("users-1", 421, "gone"), ("users-2", 200, "gone"), (None, 200, "gone"),
        ("users-1", 302, "alive"),
    ],
)  # fmt: skip
async def test_alive_is_who_answers_in_its_own_name_whatever_the_status(
    probe: HttpProbe, name: str | None, status: int, answer: Answer
) -> None:
    async with http_peer(names_itself(name, status=status)) as peer:
        assert await probe(instance(url=peer.url)) == answer
        ((method, path, headers, _),) = peer.requests
        assert (method, path, headers["x-mesh-target"]) == ("GET", "/livez", "users-1")


async def test_nobody_is_found_by_following_a_redirect(probe: HttpProbe) -> None:
    async with http_peer(names_itself("users-1")) as another:

        async def redirect(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"location": f"{another.url}/livez"})

        async with http_peer(redirect) as peer:
            assert await probe(instance(url=peer.url)) == "gone"
        assert another.requests == []


async def test_where_nobody_listens_nobody_is_and_where_nobody_answers_somebody_may_be(probe: HttpProbe) -> None:
    assert await probe(instance(url=await refused_url())) == "gone"
    hangs, ends = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hangs.set()
        await ends.wait()
        writer.close()

    async with raw_peer(hang) as url:
        assert await probe(instance(url=url)) == "silent"
        assert hangs.is_set()
        ends.set()


async def test_rubbish_and_a_cut_connection_are_silence(probe: HttpProbe) -> None:
    for words in (b"rubbish\r\n\r\n", b""):

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes = words) -> None:
            writer.write(words)
            writer.close()

        async with raw_peer(answer) as url:
            assert await probe(instance(url=url)) == "silent"


async def test_a_name_that_leads_out_of_the_allowed_networks_is_not_followed() -> None:
    class Astray(AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:  # type: ignore[override]
            return [
                {"hostname": host, "host": "169.254.169.254", "port": port, "family": family, "proto": 0, "flags": 0}
            ]

        async def close(self) -> None:
            """Nothing to do."""

    async with HttpProbe(GuardedResolver(NETWORKS, resolver=Astray()), timeout_seconds=5) as probe:
        assert await probe(instance(url="http://users.town:80")) == "silent"


# ------------------------------------------------------------------------------------------ the inquiry


class Town:
    """Answers probes as it is told, and keeps the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.successes: dict[str, float] = {}

    async def probe(self, peer: Instance) -> Answer:
        self.asked.append(peer.id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.answers.get(peer.id, "alive")

    def inquiry(self) -> Inquiry:
        return Inquiry(self.probe, last_success=self.successes.get, clock=lambda: self.now)


A = instance(id="a")


async def test_the_evidence_of_a_probe_and_that_of_traffic_count_by_their_time() -> None:
    town = Town()
    inquiry = town.inquiry()
    assert inquiry.evidence(A) == Evidence()
    town.successes["a"] = 90.0
    assert inquiry.evidence(A) == Evidence(alive_at=90.0)
    assert await inquiry.ask([A]) == [A]
    assert inquiry.evidence(A) == Evidence(alive_at=100.0, asked_at=100.0)
    town.answers["a"], town.now = "gone", 110.0
    assert await inquiry.ask([A]) == []
    assert inquiry.evidence(A) == Evidence(alive_at=100.0, gone_at=110.0, asked_at=110.0)
    town.successes["a"] = 111.0
    assert inquiry.evidence(A).alive_at == 111.0


async def test_one_silence_may_be_ours_and_only_the_second_in_a_row_counts() -> None:
    town = Town()
    inquiry, never = town.inquiry(), Evidence().gone_at
    answers: list[Answer] = ["silent", "alive", "silent", "silent"]
    for answer in answers:
        assert inquiry.evidence(A).gone_at == never
        town.answers["a"], town.now = answer, town.now + 10
        await inquiry.ask([A])
    assert inquiry.evidence(A).gone_at == town.now


async def test_who_is_no_suspect_any_more_begins_anew() -> None:
    town = Town()
    inquiry = town.inquiry()
    town.answers["a"] = "gone"
    await inquiry.ask([A])
    inquiry.forget_all_but({"a"})
    assert inquiry.evidence(A).gone_at == town.now
    inquiry.forget_all_but(set())
    assert inquiry.evidence(A) == Evidence()


async def test_of_many_suspects_few_are_asked_at_once() -> None:
    town = Town()
    many = [instance(id=f"u{n}") for n in range(1000)]
    await town.inquiry().ask(many)
    assert town.asked == [peer.id for peer in many[:64]]
    assert town.most_at_once == 16


# ------------------------------------------------------------------------------------------ in the directory


def decided(witness: Witness) -> list[tuple[str, str]]:
    return [(decision.outcome, decision.instance) for decision in witness.decisions if decision.kind == "suspect"]


async def expire(store: redis.Redis, keys: Keys, instance_id: str) -> None:
    """Its lease has ended: the next sweep takes it out."""
    store.zadd(keys.leases("users"), {instance_id: 1}, xx=True)
    await until(lambda: not store.hexists(keys.records("users"), instance_id))


async def test_an_expired_peer_stays_for_as_long_as_it_answers(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis, keys: Keys
) -> None:
    witness = Witness()
    async with mesh_of(settings, redis_url, "orders", observer=witness) as caller:
        await caller.membership.register()
        async with http_peer(names_itself("cut-off")) as peer:
            beat(registry, settings, instance(id="cut-off", url=peer.url))
            await until(lambda: caller.directory.ready("users"))
            await expire(store, keys, "cut-off")
            # Asked again and again, and found there each time.
            await until(lambda: len(peer.requests) >= 3)
            assert [one.id for one in caller.directory.ready("users")] == ["cut-off"]
            assert caller.directory.suspects == ("cut-off",)
        await until(lambda: not caller.directory.instances("users"))
        assert list(caller.directory.suspects) == []
        assert decided(witness)[:2] == [("expired", "cut-off"), ("alive", "cut-off")]
        assert decided(witness)[-1] == ("gone", "cut-off")


async def test_an_expired_peer_whose_address_another_has_taken_over_is_dropped(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis, keys: Keys
) -> None:
    async with mesh_of(settings, redis_url, "orders") as caller, http_peer(names_itself("heir")) as peer:
        await caller.membership.register()
        beat(registry, settings, instance(id="late", url=peer.url))
        await until(lambda: caller.directory.ready("users"))
        await expire(store, keys, "late")
        await until(lambda: not caller.directory.instances("users"))


async def test_a_peer_that_answers_our_requests_is_not_even_probed(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis, keys: Keys
) -> None:
    async with mesh_of(settings, redis_url, "orders") as caller, http_peer(names_itself("busy")) as peer:
        await caller.membership.register()
        caller.directory._examiner._inquiry._last_success = lambda _: asyncio.get_running_loop().time()
        beat(registry, settings, instance(id="busy", url=peer.url))
        await until(lambda: caller.directory.ready("users"))
        await expire(store, keys, "busy")
        await until(lambda: caller.directory.suspects)
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.registry.lease_seconds):
                await until(lambda: peer.requests or not caller.directory.ready("users"))
        assert (peer.requests, len(caller.directory.ready("users"))) == ([], 1)


async def test_while_redis_is_away_a_suspect_is_left_alone(
    settings: Settings, redis_url: str, registry: BlockingRegistry, store: redis.Redis, keys: Keys
) -> None:
    async with redis_line(redis_url) as line, mesh_of(settings, redis_url, "orders") as other:
        await other.membership.register()
        async with mesh_of(settings, line.url) as caller:
            beat(registry, settings, instance(id="ghost", url=await refused_url()))
            await until(lambda: caller.directory.ready("users"))
            await _suspected_and_cut_off(caller.directory, line, store, keys)
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.registry.lease_seconds):
                    await until(lambda: not caller.directory.ready("users"))
            assert caller.directory.suspects == ("ghost",)
            await line.mend()
            await until(lambda: not caller.directory.ready("users"))


async def _suspected_and_cut_off(directory: Directory, line: Line, store: redis.Redis, keys: Keys) -> None:
    """Between hearing of the end of the lease and asking the peer, Redis goes away."""
    examiner, may_examine = directory._examiner, asyncio.Event()
    examine = examiner.examine

    async def held(suspecting: Suspecting, /) -> None:
        await may_examine.wait()
        await examine(suspecting)

    examiner.examine = held  # type: ignore[method-assign]
    await expire(store, keys, "ghost")
    await until(lambda: directory.suspects)
    await line.cut()
    await until(lambda: not directory.healthy)
    may_examine.set()
