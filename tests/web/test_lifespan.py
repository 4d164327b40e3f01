"""Start-up and shut-down functions, and the other ways to run the same application."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Misconfigured
from app.web.bridge import AsyncFlask
from app.web.serving import server
from tests.web.harness import serving


@pytest.fixture
def app() -> AsyncFlask:
    return AsyncFlask("tests.web.lifespan")


async def test_functions_run_in_order_and_close_in_reverse(app: AsyncFlask) -> None:
    order = []

    @app.before_serving
    async def first() -> None:
        order.append("first")

    @app.while_serving
    async def around() -> AsyncIterator[None]:
        order.append("around starts")
        yield
        order.append("around stops")

    @app.before_serving
    def plain() -> None:
        order.append("plain")

    @app.after_serving
    async def last() -> None:
        order.append("last")

    @app.get("/")
    async def view() -> str:
        order.append("request")
        return ""

    async with serving(app.asgi_app) as client:
        await client.get("/")
    assert order == ["first", "around starts", "plain", "request", "last", "around stops"]


async def test_a_failing_start_undoes_what_was_opened_and_is_told_with_its_reason(app: AsyncFlask) -> None:
    order = []

    @app.while_serving
    async def opened() -> AsyncIterator[None]:
        try:
            yield
        finally:
            order.append("closed")

    @app.before_serving
    async def fail() -> None:
        raise ConnectionError("the database is not there")

    with pytest.raises(Misconfigured, match="the database is not there"):
        async with serving(app.asgi_app):
            pass
    assert order == ["closed"]


def run_script(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "main.py"
    script.write_text(textwrap.dedent(body))
    root = Path(__file__).parent.parent.parent
    return subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_failing_start_ends_another_asgi_server_too(tmp_path: Path) -> None:
    finished = run_script(
        tmp_path,
        """
        import asyncio
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
        from app.web.bridge import AsyncFlask

        app = AsyncFlask("main")

        @app.before_serving
        async def fail():
            raise ConnectionError("no database at all")

        config = Config()
        config.bind = ["127.0.0.1:0"]
        asyncio.run(serve(app.asgi_app, config))
        """,
    )
    assert finished.returncode != 0
    assert "no database at all" in finished.stderr


async def test_a_request_in_flight_is_finished_and_an_idle_connection_closed_at_the_end(app: AsyncFlask) -> None:
    entered, proceed = asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        entered.set()
        await proceed.wait()
        return "finished"

    @app.get("/")
    async def quick() -> str:
        return ""

    async with serving(app.asgi_app) as client:
        await client.get("/")
        request = asyncio.create_task(client.get("/slow"))
        await entered.wait()
        proceed.set()
        reply = await request
        assert await reply.text() == "finished"


async def test_what_outlives_the_drain_is_cut_off(app: AsyncFlask) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    @app.get("/")
    async def stuck() -> str:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    async def nothing() -> None:
        pass

    stop = asyncio.Event()
    sock = server.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    task = asyncio.create_task(server.serve(app.asgi_app, sock, stop=stop, drain_seconds=0.05, on_stop=nothing))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(entered.wait(), 10)
    stop.set()
    await asyncio.wait_for(task, 10)
    assert cancelled.is_set()
    writer.close()


def test_a_taken_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Misconfigured, match="in use"):
        server.listen("127.0.0.1", taken.getsockname()[1])


def test_flasks_own_test_client_works_on_the_same_application(app: AsyncFlask) -> None:
    @app.before_request
    async def before() -> None:
        await asyncio.sleep(0)

    @app.get("/async")
    async def asynchronous() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"from": "async"}

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/stream")
    async def stream() -> Any:
        async def body() -> Any:
            yield "a"
            await asyncio.sleep(0)
            yield "b"

        return body()

    client = app.test_client()
    assert client.get("/async").get_json() == {"from": "async"}
    assert client.get("/plain").text == "plain"
    assert client.get("/stream").text == "ab"


def test_flask_run_serves_the_same_application(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(
        textwrap.dedent(
            """
            import asyncio
            from app.web.bridge import AsyncFlask

            app = AsyncFlask("hello")

            @app.get("/")
            async def view():
                await asyncio.sleep(0)
                return "by flask run"
            """
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "hello:app", "run", "--port", str(port)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Running on" in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as reply:
            assert reply.read() == b"by flask run"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
