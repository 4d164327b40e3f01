"""The outermost layer: context, time bound, metrics, and problem documents for what Flask never saw."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app import context
from app.errors import Conflict
from app.telemetry import Metrics
from app.web.entrance.entry import Entry
from tests.web.harness import Exchange


def entry(app: Any, *, max_seconds: float = 5.0) -> Entry:
    return Entry(app, metrics=Metrics(service="tests"), max_seconds=max_seconds)


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_a_request_id_is_kept_or_made_and_always_answered() -> None:
    given = await Exchange(headers=[(b"x-request-id", b"abc-1")]).run(entry(answer_ok))
    assert (b"x-request-id", b"abc-1") in given.headers
    made = await Exchange(headers=[(b"x-request-id", b"for\x01ged \xff")]).run(entry(answer_ok))
    [value] = [value for name, value in made.headers if name == b"x-request-id"]
    assert len(value) == 24


async def test_the_context_is_there_for_whoever_serves() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(context.current())
        await answer_ok(scope, receive, send)

    headers = [(b"x-request-timeout-ms", b"2000"), (b"x-mesh-caller", b"orders")]
    await Exchange(headers=headers).run(entry(app, max_seconds=5))
    assert seen[0].caller == "orders"
    assert 0 < seen[0].remaining_seconds() <= 2
    assert context.current() is None


async def test_no_time_left_is_a_504_without_work() -> None:
    touched = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        touched.append(True)

    answer = await Exchange(headers=[(b"x-request-timeout-ms", b"0")]).run(entry(app))
    assert (answer.status, json.loads(answer.body)["code"], touched) == (504, "deadline_exceeded", [])


async def test_running_out_of_time_cancels_the_work_and_is_a_504() -> None:
    cancelled = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    answer = await Exchange().run(entry(app, max_seconds=0.02))
    assert (answer.status, cancelled) == (504, [True])


async def test_an_answer_that_has_begun_may_take_longer() -> None:
    begun, expired = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        await expired.wait()
        await send({"type": "http.response.body", "body": b"late"})

    task = asyncio.create_task(Exchange().run(entry(app, max_seconds=0.02)))
    await begun.wait()
    asyncio.get_running_loop().call_later(0.06, expired.set)
    assert (await task).body == b"late"


async def test_a_timeout_of_the_applications_own_is_not_taken_for_the_deadline() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError("something else")

    answer = await Exchange().run(entry(app))
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "internal_error")


@pytest.mark.parametrize(("error", "status"), [(Conflict("taken"), 409), (LookupError("secret detail"), 500)])
async def test_an_error_outside_flask_is_a_problem_document(error: Exception, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    answer = await Exchange(path="/here").run(entry(app))
    document = json.loads(answer.body)
    assert (answer.status, document["status"], document["instance"]) == (status, status, "/here")
    assert (b"content-type", b"application/problem+json") in answer.headers
    assert b"secret detail" not in answer.body
    assert document["request_id"] == dict(answer.headers)[b"x-request-id"].decode()


async def test_an_error_after_the_answer_began_is_raised_so_that_the_server_breaks_off() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("half-way")

    exchange = Exchange()
    with pytest.raises(LookupError):
        await exchange.run(entry(app))
    assert not exchange.complete


async def test_requests_are_counted_by_route_and_none_stays_in_flight() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = "/things/<int:id>"
        await answer_ok(scope, receive, send)

    metrics = Metrics(service="tests")
    outermost = Entry(app, metrics=metrics, max_seconds=5)
    for number in range(3):
        await Exchange(path=f"/things/{number}").run(outermost)
    text = metrics.render()[0].decode()
    assert 'mesh_requests_total{method="GET",route="/things/<int:id>",service="tests",status="200"} 3.0' in text
    assert metrics.in_flight.value == 0


async def test_a_draining_process_says_goodbye_to_its_connections() -> None:
    outermost = entry(answer_ok)
    outermost.draining = True
    assert (b"connection", b"close") in (await Exchange().run(outermost)).headers
    assert (b"connection", b"close") not in (await Exchange(http_version="2").run(outermost)).headers


async def test_at_the_public_edge_nobody_can_say_who_calls() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(context.current())
        await answer_ok(scope, receive, send)

    outermost = Entry(app, metrics=Metrics(service="tests"), max_seconds=5, public=True)
    await Exchange(headers=[(b"x-mesh-caller", b"orders"), (b"x-request-id", b"kept")]).run(outermost)
    assert (seen[0].caller, seen[0].request_id) == (None, "kept")


async def test_a_request_for_another_instance_is_turned_away_and_one_for_us_is_not() -> None:
    touched: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        touched.append(True)
        await answer_ok(scope, receive, send)

    outermost = entry(app)
    named = {"headers": [(b"x-mesh-target", b"users-2")]}
    assert (await Exchange(**named).run(outermost)).status == 200, "who has no name yet is whoever was meant"
    outermost.instance_id = "users-1"
    turned_away = await Exchange(**named).run(outermost)
    assert (turned_away.status, json.loads(turned_away.body)["code"]) == (421, "misdirected")
    assert dict(turned_away.headers)[b"x-mesh-unprocessed"] == b"misdirected"
    assert (await Exchange(headers=[(b"x-mesh-target", b"users-1")]).run(outermost)).status == 200
    assert touched == [True, True]


async def test_at_the_public_edge_nobody_can_ask_for_an_instance() -> None:
    outermost = Entry(answer_ok, metrics=Metrics(service="tests"), max_seconds=5, public=True)
    outermost.instance_id = "gateway-1"
    assert (await Exchange(headers=[(b"x-mesh-target", b"users-2")]).run(outermost)).status == 200


async def test_who_asks_whether_it_lives_hears_who_it_is() -> None:
    outermost = entry(answer_ok)
    outermost.instance_id = "users-1"
    assert (b"x-mesh-instance", b"users-1") in (await Exchange(path="/livez").run(outermost)).headers
    assert b"x-mesh-instance" not in dict((await Exchange(path="/users/7").run(outermost)).headers)


@pytest.mark.parametrize("public", [False, True])
async def test_a_draining_process_tells_its_peers_with_every_answer_and_strangers_nothing(public: bool) -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        raise Conflict("taken")

    for app in (answer_ok, breaks):
        outermost = Entry(app, metrics=Metrics(service="tests"), max_seconds=5, public=public)
        assert (b"x-mesh-draining", b"1") not in (await Exchange().run(outermost)).headers
        outermost.draining = True
        assert ((b"x-mesh-draining", b"1") in (await Exchange().run(outermost)).headers) is not public
