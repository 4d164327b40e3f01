# mypy: disable-error-code="untyped-decorator"
"""The bridge behaves as Flask does, and waits as asyncio does."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any

import aiohttp
import flask
import pytest
from flask import Blueprint, Response, abort, after_this_request, g, request, session, stream_with_context
from flask.signals import got_request_exception, request_finished, request_started
from flask.views import MethodView, View
from sqlalchemy.util import await_only, greenlet_spawn
from werkzeug.exceptions import Conflict
from werkzeug.middleware.proxy_fix import ProxyFix

from app.web import bridge
from app.web.bridge import AsyncFlask, NoBridge, await_
from tests.web.harness import DISCONNECT, Exchange, chunk, serving

marker: ContextVar[str] = ContextVar("marker", default="unset")


@pytest.fixture
def app() -> AsyncFlask:
    app = AsyncFlask("tests.web", worker_threads=4)
    app.secret_key = "for tests alone"
    return app


async def call(app: AsyncFlask, path: str = "/", *messages: dict[str, Any], **scope: Any) -> Exchange:
    return await Exchange(*messages, path=path, raw_path=path.encode(), **scope).run(app.asgi_app)


# ------------------------------------------------------------------------------------------ views


async def test_an_async_view_runs_on_the_loop_that_serves_it(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> dict[str, bool]:
        return {"same": asyncio.get_running_loop() is loop and threading.current_thread() is thread}

    loop, thread = asyncio.get_running_loop(), threading.current_thread()
    assert (await call(app)).body == b'{"same":true}'


async def test_a_plain_view_never_blocks_the_loop(app: AsyncFlask) -> None:
    released = threading.Event()

    @app.get("/block")
    def block() -> str:
        assert released.wait(10)
        return "done"

    @app.get("/release")
    async def release() -> str:
        released.set()
        return "released"

    blocked, _ = await asyncio.gather(call(app, "/block"), call(app, "/release"))
    assert blocked.body == b"done"


async def test_plain_views_are_bounded_by_the_thread_pool(app: AsyncFlask) -> None:
    running, most, lock = 0, 0, threading.Lock()

    @app.get("/")
    def view() -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)  # work of a plain view, not waiting for a condition
        with lock:
            running -= 1
        return ""

    answers = await asyncio.gather(*[call(app) for _ in range(20)])
    assert {answer.status for answer in answers} == {200}
    assert most == 4


async def test_async_views_wait_side_by_side(app: AsyncFlask) -> None:
    barrier = asyncio.Barrier(300)

    @app.get("/")
    async def view() -> str:
        await barrier.wait()
        return request.path

    answers = await asyncio.gather(*[call(app) for _ in range(300)])
    assert {answer.body for answer in answers} == {b"/"}


async def test_a_plain_view_shares_its_context_with_the_hooks_around_it(app: AsyncFlask) -> None:
    seen: list[Any] = []

    @app.before_request
    def before() -> None:
        marker.set("before")
        g.by = "hook"

    @app.get("/")
    def view() -> str:
        seen.append((marker.get(), g.by, request.path, threading.current_thread() is threading.main_thread()))
        marker.set("view")
        return ""

    @app.after_request
    async def after(response: Response) -> Response:
        seen.append(marker.get())
        return response

    await call(app)
    assert seen == [("before", "hook", "/", False), "view"]


async def test_requests_do_not_see_one_anothers_context(app: AsyncFlask) -> None:
    barrier = asyncio.Barrier(20)

    @app.get("/<name>")
    async def view(name: str) -> str:
        g.name = name
        marker.set(name)
        await barrier.wait()
        return f"{g.name} {marker.get()} {request.view_args['name']}" if request.view_args else ""

    async def one(number: int) -> bytes:
        return (await call(app, f"/n{number}")).body

    bodies = await asyncio.gather(*[asyncio.create_task(one(number)) for number in range(20)])
    assert bodies == [f"n{number} n{number} n{number}".encode() for number in range(20)]


async def test_class_based_views_may_be_async_or_plain_method_by_method(app: AsyncFlask) -> None:
    class Mixed(MethodView):
        async def get(self) -> str:
            await asyncio.sleep(0)
            return f"get on main: {threading.current_thread() is threading.main_thread()}"

        def post(self) -> str:
            return f"post on main: {threading.current_thread() is threading.main_thread()}"

    class Single(View):
        init_every_request = False

        async def dispatch_request(self) -> str:  # type: ignore[override]  # Flask's types know no async views
            await asyncio.sleep(0)
            return "single"

    app.add_url_rule("/mixed", view_func=Mixed.as_view("mixed"))
    app.add_url_rule("/single", view_func=Single.as_view("single"))
    assert (await call(app, "/mixed")).body == b"get on main: True"
    assert (await call(app, "/mixed", method="POST")).body == b"post on main: False"
    assert (await call(app, "/mixed", method="HEAD")).body == b""
    assert (await call(app, "/single")).body == b"single"


async def test_nested_blueprints_run_their_hooks_in_flasks_order(app: AsyncFlask) -> None:
    order = []
    outer, inner = Blueprint("outer", __name__, url_prefix="/outer"), Blueprint("inner", __name__, url_prefix="/inner")

    def note(name: str) -> Any:
        async def hook() -> None:
            order.append(name)

        return hook

    app.before_request(note("app"))
    outer.before_request(note("outer"))
    inner.before_request(note("inner"))

    @inner.get("/")
    async def view() -> str:
        return flask.url_for(".view")

    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    assert (await call(app, "/outer/inner/")).body == b"/outer/inner/"
    assert order == ["app", "outer", "inner"]


# ------------------------------------------------------------------------------------------ hooks, signals, errors


async def test_hooks_signals_and_teardowns_may_be_async_or_plain(  # noqa: C901  # one function per kind of hook
    app: AsyncFlask,
) -> None:
    order: list[str] = []

    async def started(sender: Any, **_: Any) -> None:
        await asyncio.sleep(0)
        order.append("signal started")

    def finished(sender: Any, **_: Any) -> None:
        order.append("signal finished")

    @app.before_request
    async def before() -> None:
        await asyncio.sleep(0)
        order.append("before")

    @app.get("/")
    async def view() -> str:
        @after_this_request
        async def late(response: Response) -> Response:
            await asyncio.sleep(0)
            order.append("after this")
            return response

        return "x"

    @app.after_request
    def after(response: Response) -> Response:
        order.append("after")
        return response

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        await asyncio.sleep(0)
        order.append(f"teardown request {error}")

    @app.teardown_appcontext
    def teardown_app(error: BaseException | None) -> None:
        order.append("teardown app")

    with request_started.connected_to(started, app), request_finished.connected_to(finished, app):
        await call(app)
    assert order == [
        "signal started",
        "before",
        "after this",
        "after",
        "signal finished",
        "teardown request None",
        "teardown app",
    ]


async def test_error_handlers_may_be_async_or_plain(app: AsyncFlask) -> None:
    @app.errorhandler(KeyError)
    async def on_key(error: KeyError) -> tuple[str, int]:
        await asyncio.sleep(0)
        return "key", 418

    @app.errorhandler(409)
    def on_conflict(error: Conflict) -> tuple[str, int]:
        return "conflict", 409

    @app.get("/key")
    async def key() -> str:
        await asyncio.sleep(0)
        raise KeyError("x")

    @app.get("/conflict")
    def conflict() -> str:
        abort(409)

    first, second = await call(app, "/key"), await call(app, "/conflict")
    assert (first.status, first.body, second.status, second.body) == (418, b"key", 409, b"conflict")


async def test_an_unhandled_error_is_a_500_and_teardowns_hear_of_it(app: AsyncFlask) -> None:
    heard: list[BaseException | None] = []
    app.teardown_request(heard.append)

    @app.get("/")
    async def view() -> str:
        raise LookupError("lost")

    with got_request_exception.connected_to(lambda *_, exception, **__: heard.append(exception), app):
        answer = await call(app)
    assert answer.status == 500
    assert b"lost" not in answer.body
    assert [type(error) for error in heard] == [LookupError, LookupError]


async def test_sessions_travel_in_their_cookie(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> str:
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    async with serving(app.asgi_app) as client:
        client.cookie_jar.clear()
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(client._base_url, cookie_jar=jar) as visitor:
            bodies = [await (await visitor.get("/")).text() for _ in range(3)]
    assert bodies == ["1", "2", "3"]


# ------------------------------------------------------------------------------------------ bodies that stream


async def test_plain_and_async_generators_are_bodies(app: AsyncFlask) -> None:
    @app.get("/plain")
    async def plain() -> Any:
        def body() -> Any:
            yield "a"
            yield b"b"

        return body(), 202, {"X-Kind": "plain"}

    @app.get("/async")
    async def asynchronous() -> Any:
        async def body() -> Any:
            yield "a"
            await asyncio.sleep(0)
            yield b"b"

        return body(), 202, {"X-Kind": "async"}

    @app.get("/response")
    def response() -> Any:
        async def body() -> Any:
            yield b"ab"

        return Response(body(), 202, mimetype="text/plain")

    for path in ("/plain", "/async", "/response"):
        answer = await call(app, path)
        assert (answer.status, answer.body, answer.complete) == (202, b"ab", True)


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_stream_with_context_keeps_the_request(app: AsyncFlask, kind: str) -> None:
    torn_down: list[Any] = []
    app.teardown_request(torn_down.append)

    def body() -> Any:
        yield request.args["name"]
        assert len(torn_down) == 1, "Flask 3.1 tears down once after the view and once after the stream"
        yield "!"

    @app.get("/async")
    async def asynchronous() -> Any:
        return stream_with_context(body())

    @app.get("/plain")
    def plain() -> Any:
        return Response(stream_with_context(body()))

    answer = await call(app, f"/{kind}", query_string=b"name=Ada")
    assert answer.body == b"Ada!"
    assert torn_down == [None, None]


async def test_stream_with_context_keeps_the_request_of_an_async_body_too(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> Any:
        async def body() -> Any:
            yield request.args["name"]
            await asyncio.sleep(0)
            yield g.mark

        g.mark = "!"
        return bridge.stream_with_context(body())

    assert (await call(app, query_string=b"name=Ada")).body == b"Ada!"


async def test_a_blocking_generator_does_not_block_the_loop(app: AsyncFlask) -> None:
    turned = threading.Event()

    @app.get("/")
    async def view() -> Any:
        def body() -> Any:
            assert turned.wait(10)
            yield "late"

        return body()

    async def turn() -> None:
        turned.set()

    answer, _ = await asyncio.gather(call(app), turn())
    assert answer.body == b"late"


async def test_a_stream_is_sent_while_it_is_made(app: AsyncFlask) -> None:
    proceed = asyncio.Event()

    @app.get("/")
    async def view() -> Any:
        async def body() -> Any:
            yield b"first"
            await proceed.wait()
            yield b"second"

        return body()

    async with serving(app.asgi_app) as client, client.get("/") as reply:
        assert await reply.content.readany() == b"first"
        proceed.set()
        assert await reply.content.read() == b"second"


async def test_an_error_in_a_streamed_body_breaks_the_connection_off(app: AsyncFlask) -> None:
    closed = []

    @app.get("/<kind>")
    async def view(kind: str) -> Any:
        async def asynchronous() -> Any:
            yield b"some"
            raise RuntimeError("half-way")

        def plain() -> Any:
            yield b"some"
            raise RuntimeError("half-way")

        response = app.make_response(asynchronous() if kind == "async" else plain())
        response.call_on_close(lambda: closed.append(kind))
        return response

    async with serving(app.asgi_app) as client:
        for kind in ("async", "plain"):
            async with client.get(f"/{kind}") as reply:
                assert reply.status == 200
                with pytest.raises(aiohttp.ClientPayloadError):
                    await reply.read()
    assert closed == ["async", "plain"]


async def test_close_and_call_on_close_run_once_the_body_is_sent(app: AsyncFlask) -> None:
    order = []

    class Body:
        def __iter__(self) -> Any:
            order.append("iterated")
            return iter([b"x"])

        def close(self) -> None:
            order.append("body closed")

    @app.get("/stream")
    async def stream() -> Any:
        response = Response(Body())
        response.call_on_close(lambda: order.append("called"))
        return response

    @app.get("/whole")
    async def whole() -> Any:
        response = Response("x")
        response.call_on_close(lambda: order.append("whole called"))
        return response

    await call(app, "/stream")
    await call(app, "/stream", method="HEAD")
    await call(app, "/whole")
    assert order == ["iterated", "body closed", "called", "body closed", "called", "whole called"]


# ------------------------------------------------------------------------------------------ request bodies


async def test_a_file_upload_arrives(app: AsyncFlask) -> None:
    @app.post("/")
    async def view() -> dict[str, Any]:
        file = request.files["file"]
        return {"name": file.filename, "size": len(file.read()), "note": request.form["note"]}

    form = aiohttp.FormData({"note": "ünïcode"})
    form.add_field("file", io.BytesIO(b"z" * 700_000), filename="z.bin")
    async with serving(app.asgi_app) as client, client.post("/", data=form) as reply:
        assert await reply.json() == {"name": "z.bin", "size": 700_000, "note": "ünïcode"}


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_large_body_is_read_as_a_stream(app: AsyncFlask, kind: str) -> None:
    ahead = []
    exchange = Exchange(
        *[chunk(b"y" * 65536) for _ in range(50)],
        chunk(b"", more=False),
        method="POST",
        path=f"/{kind}",
        headers=[(b"transfer-encoding", b"chunked")],
    )

    def consume() -> str:
        total = 0
        while piece := request.stream.read(65536):
            total += len(piece)
            ahead.append(exchange.received * 65536 - total)
        return str(total)

    @app.post("/async")
    async def asynchronous() -> str:
        return consume()

    @app.post("/plain")
    def plain() -> str:
        return consume()

    await exchange.run(app.asgi_app)
    assert exchange.body == str(50 * 65536).encode()
    assert max(ahead) <= 2 * 65536, "at most the chunk in hand and one that the watcher holds"


async def test_lines_of_a_body_can_be_read(app: AsyncFlask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = None

    @app.post("/")
    async def view() -> dict[str, Any]:
        return {"lines": [line.decode() for line in request.stream]}

    messages = [chunk(b"one\ntw"), chunk(b"o\n\nthr"), chunk(b"ee", more=False)]
    answer = await call(app, "/", *messages, method="POST", headers=[(b"transfer-encoding", b"chunked")])
    assert answer.body == b'{"lines":["one\\n","two\\n","\\n","three"]}'


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"content-length", b"5000")], id="announced"),
        pytest.param([(b"transfer-encoding", b"chunked")], id="chunked"),
        pytest.param([(b"content-length", b"10")], id="lying"),
    ],
)
async def test_a_body_over_the_limit_is_a_413(app: AsyncFlask, headers: list[tuple[bytes, bytes]]) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 1000

    @app.post("/")
    async def view() -> str:
        return str(len(request.get_data()))

    messages = [*[chunk(b"x" * 500) for _ in range(9)], chunk(b"x" * 500, more=False)]
    assert (await call(app, "/", *messages, method="POST", headers=headers)).status == 413


async def test_a_client_that_still_sends_can_read_its_413(app: AsyncFlask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 1000

    @app.post("/")
    async def view() -> str:
        return str(len(request.get_data()))

    async with serving(app.asgi_app) as client, client.post("/", data=io.BytesIO(b"x" * 4_000_000)) as reply:
        assert reply.status == 413


async def test_an_unread_small_body_does_not_cost_the_connection(app: AsyncFlask) -> None:
    @app.post("/")
    async def view() -> dict[str, Any]:
        return {"port": request.environ["REMOTE_PORT"]}

    async with serving(app.asgi_app) as client:
        ports = {(await (await client.post("/", data=b"x" * 5000)).json())["port"] for _ in range(5)}
    assert len(ports) == 1


# ------------------------------------------------------------------------------------------ HTTP's corners


async def test_bodiless_answers_have_no_body(app: AsyncFlask) -> None:
    @app.get("/<int:status>")
    async def view(status: int) -> Any:
        return "must not appear", status

    @app.get("/whole")
    async def whole() -> str:
        return "four"

    head = await call(app, "/whole", method="HEAD")
    assert (head.status, head.body, dict(head.headers)[b"content-length"]) == (200, b"", b"4")
    for status in (204, 304):
        answer = await call(app, f"/{status}")
        assert (answer.status, answer.body) == (status, b"")
        assert b"content-length" not in dict(answer.headers)


async def test_an_informational_status_is_no_final_answer(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> Any:
        return "", 103

    async with serving(app.asgi_app) as client, client.get("/") as reply:
        assert reply.status == 500


async def test_expect_100_continue_is_answered(app: AsyncFlask) -> None:
    @app.post("/")
    async def view() -> str:
        return str(len(request.get_data()))

    async with serving(app.asgi_app) as client, client.post("/", data=b"12345", expect100=True) as reply:
        assert await reply.text() == "5"


async def test_repeated_headers_are_joined_and_underscored_ones_dropped(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> dict[str, Any]:
        return {
            "accept": request.headers["Accept"],
            "cookies": dict(request.cookies),
            "user": request.headers.get("X-User"),
        }

    answer = await call(
        app,
        headers=[
            (b"accept", b"text/html"),
            (b"accept", b"text/plain"),
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"x_user", b"forged"),
        ],
    )
    assert answer.body == b'{"accept":"text/html,text/plain","cookies":{"a":"1","b":"2"},"user":null}'


async def test_repeated_response_headers_stay_apart(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> Any:
        response = Response("x")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    cookies = [value for name, value in (await call(app)).headers if name == b"set-cookie"]
    assert len(cookies) == 2


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/caf%C3%A9", "/café"),
        (b"/a%2Fb", "/a/b"),
        (b"/%25", "/%"),
        (b"/%ff", "/\N{REPLACEMENT CHARACTER}"),
        (b"http://example.com/absolute", "/absolute"),
    ],
)
async def test_paths_arrive_as_they_were_meant(app: AsyncFlask, raw: bytes, path: str) -> None:
    @app.get("/<path:rest>")
    async def view(rest: str) -> dict[str, str]:
        return {"path": request.path}

    answer = await Exchange(path="(ignored)", raw_path=raw).run(app.asgi_app)
    assert answer.body.decode() == f'{{"path":"{path}"}}'


@pytest.mark.parametrize("path", ["/app/here", "/here"])
async def test_the_root_path_is_where_the_application_is_mounted(app: AsyncFlask, path: str) -> None:
    @app.get("/here")
    async def here() -> str:
        return f"{request.root_path} {request.path} {flask.url_for('here')}"

    assert (await call(app, path, root_path="/app")).body == b"/app /here /app/here"


async def test_a_relative_redirect_and_a_strict_slash_stay_flasks(app: AsyncFlask) -> None:
    @app.get("/folder/")
    async def folder() -> str:
        return "in"

    answer = await call(app, "/folder", headers=[(b"host", b"shop.example:8443")], scheme="https")
    assert answer.status == 308
    assert dict(answer.headers)[b"location"] == b"https://shop.example:8443/folder/"


# ------------------------------------------------------------------------------------------ code that knows no async


def unaware(view: Any) -> Any:
    @wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return wrapper


def nameless(view: Any) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize("decorator", [unaware, nameless])
async def test_the_coroutine_that_an_unaware_decorator_returns_is_awaited(app: AsyncFlask, decorator: Any) -> None:
    @decorator
    async def view() -> str:
        await asyncio.sleep(0)
        abort(418)

    app.add_url_rule("/", view_func=view, endpoint="view")
    app.register_error_handler(418, lambda error: ("teapot", 418))
    assert (await call(app)).body == b"teapot"


async def test_synchronous_code_awaits_anywhere_inside_a_request(app: AsyncFlask) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    def library(number: int) -> int:
        return await_(double(number)) + await_(double(number))

    @app.before_request
    def hook() -> None:
        g.hook = library(1)

    @app.get("/async")
    async def asynchronous() -> list[int]:
        await asyncio.sleep(0)
        # SQLAlchemy's greenlets work inside ours, and ours inside theirs.
        nested = await greenlet_spawn(lambda: await_only(double(5)))
        return [g.hook, library(2), nested]

    @app.get("/plain")
    def plain() -> list[int]:
        return [g.hook, library(2), 10]

    for path in ("/async", "/plain"):
        assert (await call(app, path)).body == b"[4,8,10]"


async def test_errors_of_what_is_awaited_are_raised_where_it_waits(app: AsyncFlask) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("x")

    def view() -> str:
        with pytest.raises(LookupError):
            await_(fail())
        return "caught"

    async def aview() -> str:
        return view()

    app.add_url_rule("/plain", view_func=view, endpoint="plain")
    app.add_url_rule("/async", view_func=aview, endpoint="async")
    assert [(await call(app, path)).body for path in ("/plain", "/async")] == [b"caught", b"caught"]


async def test_await_outside_the_bridge_says_so() -> None:
    with pytest.raises(NoBridge):
        await_(asyncio.sleep(0))


async def test_a_wsgi_middleware_sees_and_changes_the_answer(app: AsyncFlask) -> None:
    @app.get("/")
    async def view() -> str:
        return f"{request.remote_addr} {request.scheme}"

    fixed = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)

    def middleware(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Middleware", "seen")], exc_info)

        return fixed(environ, start)

    app.wsgi_app = middleware  # type: ignore[method-assign]
    answer = await call(app, headers=[(b"x-forwarded-for", b"10.1.2.3"), (b"x-forwarded-proto", b"https")])
    assert answer.body == b"10.1.2.3 https"
    assert (b"x-middleware", b"seen") in answer.headers


@pytest.mark.parametrize("looks", [True, False])
async def test_a_wsgi_middleware_may_begin_with_its_first_chunk(app: AsyncFlask, looks: bool) -> None:
    @app.get("/")
    async def view() -> Any:
        return "whole", 201

    inner = app.wsgi_app

    def lazy(environ: Any, start_response: Any) -> Any:
        yield from inner(environ, partial(start_response) if looks else start_response)

    app.wsgi_app = lazy  # type: ignore[method-assign]
    answer = await call(app)
    assert (answer.status, answer.body, answer.complete) == (201, b"whole", True)


async def test_a_foreign_response_class_takes_the_wsgi_way(app: AsyncFlask) -> None:
    class Foreign(Response):
        pass

    app.response_class = Foreign  # type: ignore[assignment]

    @app.get("/")
    async def view() -> Any:
        return "plain flask", 201

    answer = await call(app)
    assert (answer.status, answer.body, answer.complete) == (201, b"plain flask", True)


# ------------------------------------------------------------------------------------------ clients that leave


async def test_a_client_that_leaves_cancels_the_view_and_teardowns_still_run(app: AsyncFlask) -> None:
    order = []
    started, torn_down = asyncio.Event(), asyncio.Event()

    @app.get("/")
    async def view() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            order.append("cancelled")
            raise
        return "never"

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        await asyncio.sleep(0)
        order.append(type(error).__name__)
        torn_down.set()

    async with serving(app.asgi_app) as client:
        visit = asyncio.create_task(client.get("/"))
        await started.wait()
        visit.cancel()
        await asyncio.wait_for(torn_down.wait(), 10)
    assert order == ["cancelled", "CancelledError"]


async def test_a_client_that_leaves_ends_an_endless_stream(app: AsyncFlask) -> None:
    closed = asyncio.Event()

    @app.get("/<kind>")
    async def view(kind: str) -> Any:
        async def asynchronous() -> Any:
            try:
                while True:
                    yield b"x" * 1000
            finally:
                closed.set()

        def plain() -> Any:
            try:
                while True:
                    yield b"x" * 1000
            finally:
                loop.call_soon_threadsafe(closed.set)

        return asynchronous() if kind == "async" else plain()

    loop = asyncio.get_running_loop()
    async with serving(app.asgi_app) as client:
        for kind in ("async", "plain"):
            closed.clear()
            reply = await client.get(f"/{kind}")
            await reply.content.read(10)
            reply.close()
            await asyncio.wait_for(closed.wait(), 10)


async def test_a_plain_view_is_not_torn_down_under_its_feet(app: AsyncFlask) -> None:
    order = []
    entered, proceed = threading.Event(), threading.Event()

    @app.get("/")
    def view() -> str:
        entered.set()
        assert proceed.wait(10)
        order.append(f"view still has {request.path}")
        return ""

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        order.append("teardown")

    task = asyncio.create_task(call(app))
    assert await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert order == []
    proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["view still has /", "teardown"]


async def test_a_disconnect_in_the_middle_of_a_body_is_no_server_error(app: AsyncFlask) -> None:
    errors: list[Any] = []
    app.teardown_request(errors.append)

    @app.post("/")
    async def view() -> str:
        return str(len(request.get_data()))

    messages = [chunk(b"part"), DISCONNECT]
    await call(app, "/", *messages, method="POST", headers=[(b"content-length", b"100")])
    assert not isinstance(errors[0], Exception)


# ------------------------------------------------------------------------------------------ other scopes


async def test_websockets_are_refused_politely(app: AsyncFlask) -> None:
    async with serving(app.asgi_app) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/")
    assert refused.value.status in (403, 501)


async def test_an_unknown_scope_is_an_error(app: AsyncFlask) -> None:
    with pytest.raises(ValueError, match="smtp"):
        await app.asgi_app({"type": "smtp"}, None, None)
