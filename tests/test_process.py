"""One service as one process: what `mesh run` starts, and what adding a service takes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app.dev import ports
from app.lab.load import ClosedLoop, OpenLoop, Tally, Target
from app.mesh.keys import Keys
from app.mesh.registry import operations
from app.mesh.registry.operations import Operation, Position, WishedState
from app.mesh.registry.record import Load
from app.mesh.registry.runner import BlockingRegistry
from app.settings import RegistrySettings, load
from app.web.serving import server
from tests.dev.system import Answer, System, first_port, until
from tests.mesh.actors import instance

ROOT = Path(__file__).parent.parent

HELLO = {
    "__init__.py": """
        from app.service import Service
        from app.services.hello.views import api

        service = Service("hello", blueprints=(api,), prefixes=("/hello",), description="Greets.")
    """,
    "views.py": """
        import asyncio

        from pydantic import BaseModel, Field

        from app.auth import public
        from app.web import API, mesh

        api = API("hello", __name__, prefix="/hello")


        class Greeting(BaseModel):
            text: str


        @api.get("/slowly", responses={200: Greeting})
        @public
        async def slowly() -> Greeting:
            \"\"\"Greet after a while.\"\"\"
            await asyncio.sleep(1)
            return Greeting(text="Hello at last")


        shelf = asyncio.Semaphore(10)


        @api.get("/capacity", responses={200: Greeting})
        @public
        async def capacity() -> Greeting:
            \"\"\"Greet, ten at a time, 100 ms each: 100 in a second at most.\"\"\"
            async with shelf:
                await asyncio.sleep(0.1)
            return Greeting(text="Hello in turn")


        class UserPath(BaseModel):
            user_id: int = Field(ge=1)


        @api.get("/users/<int:user_id>", responses={200: Greeting})
        @public
        async def user(path: UserPath) -> Greeting:
            \"\"\"Greet a user by name.\"\"\"
            reply = await mesh.get("users", f"/users/{path.user_id}")
            return Greeting(text=f"Hello, {reply.expect(200).json()['name']}")
    """,
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, to add services to."""
    copy = tmp_path / "project"
    for name in ("app", "config"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def with_hello(project: Path) -> Path:
    folder = project / "app" / "services" / "hello"
    folder.mkdir()
    for name, text in HELLO.items():
        (folder / name).write_text(textwrap.dedent(text))
    return project


@pytest.fixture
def system(tmp_path: Path, with_hello: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    monkeypatch.setenv("PYTHONPATH", str(with_hello))
    monkeypatch.chdir(with_hello)
    system = System(tmp_path / "data")
    yield system
    system.stop()


def run(project: Path, service: str, *pass_fds: int, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "run", service],
        cwd=project,
        env={**inherited, "PYTHONPATH": str(project), "MESH_DATA_DIR": str(project / "data"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if pass_fds else subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )


@dataclass
class Hello:
    """The service of this file, in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    redis_url: str
    namespace: str

    def ask(self, path: str, **headers: str) -> Answer:
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return Answer(reply.status, json.loads(reply.read()), dict(reply.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read()), dict(error.headers))

    @property
    def instance_id(self) -> str:
        return self.ask("/livez").headers["x-mesh-instance"]

    def tell_registry(self, operation: Callable[[Keys, RegistrySettings], Operation[Any]]) -> None:
        settings = load(registry={"namespace": self.namespace}).registry
        with closing(BlockingRegistry(self.redis_url)) as registry:
            registry.run(operation(Keys(self.namespace), settings))


StartHello = Callable[..., Hello]


@pytest.fixture
def start_hello(with_hello: Path, redis_url: str, namespace: str) -> Iterator[StartHello]:
    started: list[subprocess.Popen[str]] = []
    free = ports.free_from(first_port())

    def start(**environment: str) -> Hello:
        port = next(free)
        common = {"MESH_PORT": str(port), "REDIS_URL": redis_url, "MESH_REGISTRY__NAMESPACE": namespace}
        process = run(with_hello, "hello", **common, **{"MESH_LOG_LEVEL": "error"} | environment)
        started.append(process)
        until("it listens", lambda: _answers(f"http://127.0.0.1:{port}/livez"))
        return Hello(process, f"http://127.0.0.1:{port}", redis_url, namespace)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as reply:
        body: bytes = reply.read()
        return body


@pytest.mark.timeout(180)
def test_adding_a_service_is_adding_a_folder(system: System) -> None:
    system.up()
    try:
        assert system.ask("/hello/users/7").body == {"text": "Hello, User7"}
        [process] = [process for process in system.state().processes if process.service == "hello"]
        document = json.loads(get(f"{process.url}/openapi.json"))
        assert "/hello/users/{user_id}" in document["paths"]
        assert b"swagger-ui" in get(f"{process.url}/docs")
        assert b"mesh_requests_total" in get(f"{process.url}/metrics")
        assert json.loads(get(f"{process.url}/readyz"))["status"] == "ready"
        index = system.ask("/").body
        assert "/hello" in [prefix["href"] for prefix in index["prefixes"]]
    finally:
        system.stop()


def test_a_request_in_flight_is_answered_before_the_process_ends(
    with_hello: Path, redis_url: str, namespace: str
) -> None:
    port = next(ports.free_from(first_port()))
    environment = {"MESH_PORT": str(port), "REDIS_URL": redis_url, "MESH_REGISTRY__NAMESPACE": namespace}
    process = run(with_hello, "hello", **environment)
    try:
        until("it listens", lambda: _answers(f"http://127.0.0.1:{port}/livez"))
        with subprocess.Popen(
            ["curl", "-s", f"http://127.0.0.1:{port}/hello/slowly"], stdout=subprocess.PIPE, text=True
        ) as visitor:
            until("the request is being served", lambda: b" 2.0" in _in_flight(f"http://127.0.0.1:{port}/metrics"))
            process.send_signal(signal.SIGTERM)
            assert visitor.communicate(timeout=20)[0] == '{"text":"Hello at last"}'
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_stops_serves_on_until_its_callers_have_heard_of_it(start_hello: StartHello) -> None:
    hello = start_hello(MESH_SERVING__DRAIN_NOTICE_SECONDS="60")
    assert "x-mesh-draining" not in hello.ask("/livez").headers
    deaf = instance("caller", "caller-1")
    hello.tell_registry(lambda keys, settings: operations.heartbeat(keys, settings, deaf, Load(), Position()))
    hello.process.send_signal(signal.SIGTERM)
    until("it is not ready", lambda: hello.ask("/readyz").status == 503)
    answer = hello.ask("/hello/capacity")
    assert (answer.status, answer.headers["x-mesh-draining"]) == (200, "1")
    assert hello.process.poll() is None
    hello.tell_registry(lambda keys, settings: operations.deregister(keys, settings, deaf))
    assert hello.process.wait(30) == 0


def test_an_operator_may_drain_a_process_and_take_it_back(start_hello: StartHello) -> None:
    hello = start_hello()
    own = hello.instance_id

    def wish(state: WishedState) -> None:
        hello.tell_registry(lambda keys, settings: operations.wish(keys, settings, "hello", own, state))

    wish("draining")
    until("it drains", lambda: hello.ask("/readyz").status == 503)
    straggler = hello.ask("/hello/capacity")
    assert (straggler.status, straggler.headers["x-mesh-draining"]) == (200, "1")
    wish("ready")
    until("it is back", lambda: hello.ask("/readyz").status == 200)
    assert "x-mesh-draining" not in hello.ask("/hello/capacity").headers
    hello.process.send_signal(signal.SIGTERM)
    assert hello.process.wait(30) == 0


def test_a_request_for_another_instance_is_turned_away(start_hello: StartHello) -> None:
    hello = start_hello()
    own = hello.instance_id
    assert hello.ask("/hello/capacity", **{"x-mesh-target": own}).status == 200
    turned_away = hello.ask("/hello/capacity", **{"x-mesh-target": "hello-of-yesterday"})
    assert (turned_away.status, turned_away.body["code"]) == (421, "misdirected")
    assert turned_away.headers["x-mesh-unprocessed"] == "misdirected"


def test_the_management_view_opens_to_its_token_alone(start_hello: StartHello) -> None:
    hello = start_hello(MESH_MANAGEMENT_TOKEN="sesame")
    unknown = hello.ask("/nowhere")
    for headers in ({}, {"Authorization": "Bearer sesam"}, {"Authorization": "sesame"}):
        refused = hello.ask("/_mesh", **headers)
        assert (refused.status, refused.body["code"], refused.body["detail"]) == (
            404,
            "not_found",
            unknown.body["detail"],
        )
    view = hello.ask("/_mesh", Authorization="Bearer sesame").body
    assert view["instance"]["id"] == hello.instance_id
    assert view["admission"]["limit"] > view["admission"]["in_flight"] == 0
    assert view["directory"]["healthy"] is True
    assert hello.instance_id in [peer["id"] for peer in view["directory"]["services"]["hello"]]
    assert "services" in view["calls"]
    assert "sesame" not in json.dumps(view)


def test_three_times_what_a_process_can_do_leaves_it_doing_what_it_can(start_hello: StartHello) -> None:
    hello = start_hello(MESH_SERVING__PATIENCE_SECONDS="0.2", MESH_SERVING__MAX_CONCURRENT="200")
    target = Target.of(f"{hello.url}/hello/capacity")
    before = asyncio.run(_unhurried(target))
    overload = asyncio.run(_overload(target, per_second=300))
    after = asyncio.run(_unhurried(target))
    assert set(overload.statuses) == {200, 503}
    assert not overload.errors
    # What ten at a time can do on this machine, which may be busy with other things, is measured and not assumed.
    assert served(overload) > 0.7 * min(served(before), served(after))
    metrics = get(f"{hello.url}/metrics").decode()
    assert 'mesh_decisions_total{kind="shed",outcome="limit",subject="hello"}' in metrics
    assert 4 <= float(metrics.partition("\nmesh_concurrency_limit ")[2].partition("\n")[0]) <= 200
    # More than half are refused, and sooner than anybody is answered for whom there is room.
    assert overload.statuses[503] > overload.statuses[200]
    assert overload.latency_ms(50) < before.latency_ms(50)


def served(tally: Tally) -> float:
    """How many a second were answered, and not refused."""
    return tally.statuses.get(200, 0) / tally.seconds


async def _overload(target: Target, *, per_second: float) -> Tally:
    async with OpenLoop(target, per_second=per_second, connections=400) as load:
        await asyncio.sleep(2)
        load.restart_counting()
        await asyncio.sleep(2)
        return load.tally()


async def _unhurried(target: Target) -> Tally:
    """As many at a time as there is room for."""
    async with ClosedLoop(target, connections=10) as load:
        await asyncio.sleep(0.3)
        load.restart_counting()
        await asyncio.sleep(1)
        return load.tally()


def test_of_two_processes_on_one_socket_either_may_leave_under_load(
    with_hello: Path, redis_url: str, namespace: str
) -> None:
    sock = server.listen("127.0.0.1", 0)
    environment = {
        "MESH_LISTEN_FD": str(sock.fileno()),
        "REDIS_URL": redis_url,
        "MESH_REGISTRY__NAMESPACE": namespace,
        "MESH_LOG_LEVEL": "error",
    }
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    processes = [run(with_hello, "hello", sock.fileno(), **environment) for _ in range(2)]
    try:
        until("both answer", lambda: len({_instance_at(url) for _ in range(20)} - {None}) == 2)
        tally = asyncio.run(_load_while_leaving(Target.of(f"{url}/hello/capacity"), processes[0]))
        assert processes[0].returncode == 0
        assert (dict(tally.errors), set(tally.statuses)) == ({}, {200})
        assert _instance_at(url) is not None
    finally:
        sock.close()
        for process in processes:
            process.kill()
            process.communicate()


async def _load_while_leaving(target: Target, leaving: subprocess.Popen[str]) -> Tally:
    """Half of the load over kept connections, and half over a new one for each request."""
    closing_each = replace(target, headers=(("Connection", "close"),))
    async with (
        OpenLoop(target, per_second=30, connections=20) as kept,
        OpenLoop(closing_each, per_second=30, connections=20) as fresh,
    ):
        await _answered(30, kept, fresh)
        leaving.send_signal(signal.SIGTERM)
        await asyncio.to_thread(leaving.wait, 30)
        # However quickly it left: enough is asked afterwards that a connection it took with it would show.
        await _answered(30, kept, fresh)
        ours, theirs = kept.tally(), fresh.tally()
    return Tally(
        ours.seconds,
        Counter(ours.statuses) + Counter(theirs.statuses),
        Counter(ours.errors) + Counter(theirs.errors),
        [],
        0,
    )


async def _answered(more: int, *loads: OpenLoop) -> None:
    """Wait until each load has had `more` answers from now on."""
    due = [(load, load.tally().answered + more) for load in loads]
    async with asyncio.timeout(60):
        while any(load.tally().answered < count for load, count in due):
            await asyncio.sleep(0.01)


def _instance_at(url: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{url}/livez", timeout=5) as reply:
            return str(reply.headers["x-mesh-instance"])
    except OSError:
        return None


@pytest.mark.parametrize(
    ("service", "environment", "said"),
    [
        pytest.param("nobody", {}, "No service 'nobody'", id="unknown service"),
        pytest.param("users", {"MESH_HOST": "0.0.0.0"}, "MESH_ADVERTISE_URL", id="no address for peers"),
        pytest.param("users", {"MESH_LOG_LEVEL": "loud"}, "log_level", id="wrong setting"),
        pytest.param("users", {"DATABASE_URL": "nonsense"}, "database", id="wrong database"),
    ],
)
def test_a_process_that_cannot_start_says_why_in_one_line(
    project: Path, service: str, environment: dict[str, str], said: str
) -> None:
    process = run(project, service, **environment)
    _, errors = process.communicate(timeout=30)
    lines = [line for line in errors.splitlines() if not line.startswith("{")]
    assert process.returncode not in (0, None)
    assert len(lines) == 1, errors
    assert said.lower() in lines[0].lower()


def _answers(url: str) -> bool:
    try:
        return bool(get(url))
    except OSError:
        return False


def _in_flight(url: str) -> bytes:
    return b"".join(line for line in get(url).splitlines() if line.startswith(b"mesh_requests_in_flight"))
