"""One service as one process: what `mesh run` starts, and what adding a service takes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev import ports
from tests.dev.system import System, until

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

        from app.web import API, mesh

        api = API("hello", __name__, prefix="/hello")


        class Greeting(BaseModel):
            text: str


        @api.get("/slowly", responses={200: Greeting})
        async def slowly() -> Greeting:
            \"\"\"Greet after a while.\"\"\"
            await asyncio.sleep(1)
            return Greeting(text="Hello at last")


        class UserPath(BaseModel):
            user_id: int = Field(ge=1)


        @api.get("/users/<int:user_id>", responses={200: Greeting})
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


def run(project: Path, service: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "run", service],
        cwd=project,
        env={**inherited, "PYTHONPATH": str(project), "MESH_DATA_DIR": str(project / "data"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    port = next(ports.free_from(17_000 + os.getpid() % 1000))
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
