"""The gate before the application: who is let in, who is told at once that too many wait, and when a slot is free."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.context import Priority
from app.telemetry import Metrics
from app.web.bridge import AsyncFlask, answer
from app.web.entrance.entry import Entry
from app.web.entrance.limiter import Policy
from app.web.entrance.shedding import Gate
from tests.mesh.actors import Witness, until
from tests.web.harness import DISCONNECT, Exchange, chunk, serving

TOP = 10


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.lag = 0.0


def gate(**changes: Any) -> Gate:
    return Gate(Policy(**({"maximum": TOP} | changes)), service="tests")


def filled(in_flight: int) -> Gate:
    made = gate()
    made.in_flight = in_flight
    return made


@pytest.mark.parametrize(("priority", "last_let_in"), [("sheddable", 7), ("normal", 9), ("critical", 11)])
def test_what_may_be_shed_is_refused_first_and_what_is_critical_last(priority: Priority, last_let_in: int) -> None:
    assert filled(last_let_in).enter(priority, 0.0) is not None
    assert filled(last_let_in + 1).enter(priority, 0.0) is None


def test_a_loop_that_is_late_sheds_what_may_be_shed_at_once() -> None:
    made, witness = gate(), Witness()
    made.observer, made.lag = witness, lambda: 0.6
    assert made.enter("sheddable", 1.0) is None
    assert made.enter("normal", 1.0) is not None
    assert [(decision.kind, decision.service, decision.outcome) for decision in witness.decisions] == [
        ("shed", "tests", "lag")
    ]


def test_a_loop_that_stays_late_lowers_the_limit_and_one_that_was_late_once_does_not() -> None:
    late = gate(maximum=1000)
    late.lag = lambda: 0.6
    clock = Clock()
    once = gate(maximum=1000)
    once.lag = lambda: 0.6 if clock.now < 0.3 else 0.0
    for _ in range(40):
        clock.now += 0.25
        for made in (late, once):
            slot = made.enter("normal", clock.now)
            assert slot is not None
            slot.answered(200, clock.now)
    assert late.limit < 300
    assert once.limit == 1000


def test_a_slot_is_given_back_once_however_often_it_is_closed() -> None:
    made = gate()
    slot = made.enter("normal", 0.0)
    assert slot is not None
    slot.lend(0.1)
    slot.lend(0.2)
    assert made.in_flight == 0
    slot.resume(0.3)
    slot.resume(0.3)
    assert made.in_flight == 1
    slot.answered(200, 0.4)
    slot.abandoned(0.5)
    slot.lend(0.6)
    slot.resume(0.7)
    assert made.in_flight == 0


def test_what_the_client_makes_us_wait_is_not_our_latency() -> None:
    made = gate()
    slot = made.enter("normal", 0.0)
    assert slot is not None
    slot.lend(1.0)
    slot.resume(9.0)
    slot.answered(200, 9.5)
    assert made.explain()["latency_seconds"] == pytest.approx(1.5)


@pytest.mark.parametrize(("status", "counts"), [(200, True), (404, True), (504, True), (500, False), (503, False)])
def test_a_failure_says_nothing_of_how_long_answers_take(status: int, counts: bool) -> None:
    made = gate()
    slot = made.enter("normal", 0.0)
    assert slot is not None
    slot.answered(status, 1.0)
    assert (made.explain()["latency_seconds"] > 0) is counts


# Through the whole entry


class Waiting:
    """An application whose answers are given out by the test."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        try:
            await self.go.wait()
        finally:
            self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def entry(app: Any, *, public: bool = False, metrics: Metrics | None = None, top: int = 4) -> Entry:
    return Entry(
        app,
        metrics=metrics or Metrics(service="tests"),
        max_seconds=5,
        gate=Gate(Policy(maximum=top), service="tests"),
        public=public,
    )


async def crowd(outermost: Entry, app: Waiting, count: int) -> list[asyncio.Task[Exchange]]:
    tasks = [asyncio.create_task(Exchange().run(outermost)) for _ in range(count)]
    await until(lambda: app.inside == count)
    return tasks


async def test_above_the_limit_the_answer_says_that_nothing_was_done_and_when_to_come_back() -> None:
    app, metrics = Waiting(), Metrics(service="tests")
    outermost = entry(app, metrics=metrics)
    tasks = await crowd(outermost, app, 4)
    refused = await Exchange(path="/here", headers=[(b"x-request-id", b"abc")]).run(outermost)
    document, headers = json.loads(refused.body), dict(refused.headers)
    assert (refused.status, document["code"], document["instance"]) == (503, "overloaded", "/here")
    assert (headers[b"retry-after"], headers[b"x-mesh-unprocessed"]) == (b"1", b"overloaded")
    assert (headers[b"x-request-id"], document["request_id"]) == (b"abc", "abc")
    assert b"connection" not in headers
    assert app.inside == 4
    app.go.set()
    assert [task.status for task in await asyncio.gather(*tasks)] == [200] * 4
    assert (await Exchange().run(outermost)).status == 200
    assert b'mesh_requests_total{method="GET",route="",service="tests",status="503"} 1.0' in metrics.render()[0]
    assert outermost.gate.in_flight == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/_mesh"])
async def test_who_looks_after_the_process_is_never_refused(path: str) -> None:
    app = Waiting()
    outermost = entry(app)
    tasks = await crowd(outermost, app, 4)
    looking = asyncio.create_task(Exchange(path=path).run(outermost))
    await until(lambda: app.inside == 5)
    app.go.set()
    assert (await looking).status == 200
    await asyncio.gather(*tasks)


async def test_a_stranger_hears_nothing_of_what_peers_tell_each_other_and_has_no_priority() -> None:
    app = Waiting()
    outermost = entry(app, public=True)
    tasks = await crowd(outermost, app, 4)
    refused = await Exchange(headers=[(b"x-mesh-priority", b"critical")]).run(outermost)
    assert refused.status == 503
    assert not [name for name, _ in refused.headers if name.startswith(b"x-mesh-")]
    app.go.set()
    await asyncio.gather(*tasks)


async def test_an_answer_that_has_begun_holds_no_slot() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        await end.wait()
        await send({"type": "http.response.body", "body": b"late"})

    outermost = entry(app)
    task = asyncio.create_task(Exchange().run(outermost))
    await begun.wait()
    assert outermost.gate.in_flight == 0
    end.set()
    await task
    assert outermost.gate.in_flight == 0


async def test_a_client_that_leaves_frees_its_slot_and_cancels_the_view() -> None:
    app, cancelled = AsyncFlask("tests.web.shedding"), asyncio.Event()

    @app.get("/")
    async def view() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    outermost = entry(app.asgi_app)
    exchange = Exchange(DISCONNECT)
    await exchange.run(outermost)
    assert cancelled.is_set()
    assert outermost.gate.in_flight == 0
    assert outermost.gate.explain()["latency_seconds"] > 0, "it would have taken at least as long"


async def test_an_upload_holds_no_slot_while_the_client_makes_us_wait() -> None:
    more, seen = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.set()
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    outermost = entry(app)
    messages = iter([chunk(b"a"), chunk(b"b", more=False)])

    async def receive() -> Any:
        if seen.is_set():
            await more.wait()
        return next(messages)

    exchange = Exchange(method="POST", headers=[(b"content-length", b"2")])
    task = asyncio.create_task(outermost(exchange.scope, receive, exchange.send))
    await seen.wait()
    await until(lambda: outermost.gate.in_flight == 0)
    more.set()
    await task
    assert exchange.status == 200


# Over real connections


async def test_a_refused_connection_serves_the_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "SMALL_SECONDS", 10.0)  # a busy machine's packets come late
    app = Waiting()
    outermost = entry(app, top=4)

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        await (AsyncFlask("tests").asgi_app if scope["type"] == "lifespan" else outermost)(scope, receive, send)

    async with serving(with_lifespan) as client:
        busy = [asyncio.create_task(_status(client, "/")) for _ in range(4)]
        await until(lambda: app.inside == 4)
        base = client._base_url
        assert base is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", base.port)
        for number in range(3):
            body = b"x" * 10 * number
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            await asyncio.sleep(0.01)  # a body often comes in a packet of its own
            writer.write(body)
            assert (await _read_answer(reader)).startswith(b"HTTP/1.1 503")
        app.go.set()
        assert await asyncio.gather(*busy) == [200] * 4
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await _read_answer(reader, end=b"ok\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_thousand_that_merely_wait_are_all_served() -> None:
    app = AsyncFlask("tests.web.burst")

    @app.get("/")
    async def wait() -> str:
        await asyncio.sleep(0.1)
        return "ok"

    # How quickly a busy machine answers a thousand is not the question here.
    patient = Gate(Policy(patience_seconds=10))
    outermost = Entry(app.asgi_app, metrics=Metrics(service="tests"), max_seconds=30, gate=patient)
    answers = await asyncio.gather(*(Exchange().run(outermost) for _ in range(1000)))
    assert [answer.status for answer in answers] == [200] * 1000
    again = await asyncio.gather(*(Exchange().run(outermost) for _ in range(1000)))
    assert [answer.status for answer in again] == [200] * 1000


async def _status(client: Any, path: str) -> int:
    async with client.get(path) as reply:
        return int(reply.status)


async def _read_answer(reader: asyncio.StreamReader, *, end: bytes = b"}") -> bytes:
    return await asyncio.wait_for(reader.readuntil(end), 10)
