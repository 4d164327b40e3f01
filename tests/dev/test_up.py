"""`mesh up` with real processes: everything that it promises to whoever types it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev import lock
from tests.dev.system import System, is_gone, mesh, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system that runs in the foreground for all tests that only look at it, or break what heals."""
    system = System(tmp_path_factory.mktemp("running") / "data")
    try:
        system.up("--replicas", "users=2")
        yield system
    finally:
        system.stop()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "data")
    yield system
    system.stop()


# ------------------------------------------------------------------------------------------------ a running system


def test_the_example_of_every_tutorial_answers_through_the_gateway(running: System) -> None:
    user = running.ask("/users/7")
    assert (user.status, user.body["id"], user.body["name"]) == (200, 7, "User7")


def test_an_order_passes_through_three_services(running: System) -> None:
    sku = next(item["sku"] for item in running.ask("/inventory").body["items"] if item["available"] >= 2)
    body = {"user_id": 7, "items": [{"sku": sku, "quantity": 2}]}
    order = running.ask("/orders", method="POST", json_body=body, prefer="wait=9")
    assert (order.status, order.body["state"], order.headers["preference-applied"]) == (201, "confirmed", "wait=9")
    assert running.ask(order.headers["location"]).body["user_id"] == 7


def test_it_prints_what_runs_where_and_what_to_try(running: System) -> None:
    said = until("the examples are printed", lambda: running.said() if "Stop: Ctrl-C" in running.said() else "")
    for process in running.state().processes:
        assert (running.url if process.service == "gateway" else process.url) in said
        assert str(process.pid) in said
    assert f"curl {running.url}/users/7" in said
    # As `mesh` is called here: by its name, or by its path from where we are.
    token = rf"\$\(\S*mesh token --data-dir {re.escape(str(running.data_dir))}\)"
    bearer = f'-H "Authorization: Bearer {token}"'
    assert re.search(rf"    curl {bearer} {running.url}/users/7\n", said)
    assert re.search(rf"    curl -X POST {running.url}/orders {bearer} -H ", said)


def test_replicas_gives_a_service_as_many_processes(running: System) -> None:
    services = sorted(process.service for process in running.state().processes)
    assert services == ["gateway", "identity", "inventory", "orders", "users", "users"]


def test_ps_lists_every_process(running: System) -> None:
    listed = json.loads(running.mesh("ps", "--json").stdout)
    assert {member["pid"] for member in listed} >= {process.pid for process in running.state().processes}
    assert {member["state"] for member in listed} == {"ready"}
    assert all(member["heartbeat_age_seconds"] < 15 for member in listed)


def test_ps_prints_a_line_for_each(running: System) -> None:
    lines = running.typed("ps").stdout.splitlines()
    assert lines[0].split()[:3] == ["SERVICE", "INSTANCE", "URL"]
    assert {line.split()[0] for line in lines[1:]} == {"gateway", "identity", "inventory", "orders", "users"}


def test_call_prints_the_answer_and_nothing_else_on_stdout(running: System) -> None:
    called = running.mesh("call", "users", "GET", "/users/7")
    assert (called.returncode, called.stderr) == (0, "")
    assert json.loads(called.stdout)["name"] == "User7"


def test_call_explains_itself_on_stderr(running: System) -> None:
    called = running.typed("call", "users", "get", "/users/7", "--explain")
    assert json.loads(called.stdout)["name"] == "User7"
    assert called.stderr.count("candidate") == 2
    assert "status 200" in called.stderr


def test_call_sends_json_and_ends_with_1_on_an_error_status(running: System) -> None:
    called = running.typed("call", "users", "POST", "/users", "--json", '{"name": ""}')
    assert called.returncode == 1
    assert "HTTP 4" in called.stderr
    assert json.loads(called.stdout)["code"]


def test_call_of_a_service_that_is_not_there_is_one_line(running: System) -> None:
    called = running.typed("call", "nobody", "GET", "/")
    assert called.returncode == 1
    assert called.stderr.startswith("mesh: nobody: ")
    assert len(called.stderr.splitlines()) == 1


def test_a_second_up_says_that_it_runs_already(running: System) -> None:
    second = running.up_detached()
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert f"Already running at {running.url}" in second.stderr


def test_a_taken_port_is_one_line(running: System, tmp_path: Path) -> None:
    second = mesh("up", "--port", str(running.port), "--data-dir", str(tmp_path / "other"))
    assert second.returncode == 1
    assert second.stderr == f"mesh: Port {running.port} is taken; choose another with --port\n"


def test_a_killed_replica_is_started_again_on_the_same_address(running: System) -> None:
    before = next(process for process in running.state().processes if process.service == "orders")
    os.kill(before.pid, signal.SIGKILL)
    until("another one runs", lambda: running.pid_of("orders") != before.pid)
    after = next(process for process in running.state().processes if process.service == "orders")
    assert (after.url, after.restarts) == (before.url, before.restarts + 1)
    until("it answers", lambda: running.ask("/orders").status == 200)
    assert "orders-1 ended by SIGKILL; starting it again" in running.said()


def test_no_request_fails_while_one_of_two_replicas_is_killed(running: System) -> None:
    killed = running.pid_of("users", 2)
    os.kill(killed, signal.SIGKILL)
    statuses = {running.ask("/users/7").status for _ in range(50)}
    assert statuses == {200}
    until("it is back", lambda: running.pid_of("users", 2) not in (0, killed))


def test_a_killed_redis_is_started_again_and_everybody_comes_back(running: System) -> None:
    known = running.state()
    assert known.redis_pid is not None
    os.kill(known.redis_pid, signal.SIGKILL)
    pids = {process.pid for process in running.state().processes}

    def are_back() -> bool:
        listed = running.typed("ps", "--json")
        return listed.returncode == 0 and {member["pid"] for member in json.loads(listed.stdout)} >= pids

    until("all are registered again", are_back)
    assert running.ask("/users/7").status == 200


def test_the_end_of_the_forking_process_is_healed_too(running: System) -> None:
    before = {process.pid for process in running.state().processes}
    forker = lock.holder(running.data_dir / "run" / "forker.pid")
    assert forker is not None
    os.kill(forker, signal.SIGKILL)
    until("its children have gone with it", lambda: all(is_gone(pid) for pid in before))
    until("everything answers again", lambda: running.answers("/users/7") and running.answers("/orders"))


# -------------------------------------------------------------------------------------------- starting and stopping


def test_ctrl_c_leaves_no_process_and_no_lock(running: System) -> None:
    # The last test of the shared system: it stops it.
    pids = running.pids()
    assert running.foreground is not None
    running.foreground.send_signal(signal.SIGINT)
    assert running.foreground.wait(60) == 0
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert running.leftovers() == []


def test_what_was_written_survives_a_killed_supervisor_and_a_new_start(system: System) -> None:
    first = system.up_detached()
    assert first.returncode == 0, first.stderr
    created = system.ask("/users", method="POST", json_body={"name": "Ada", "email": "ada@example.com"})
    assert created.status == 201
    pids = system.pids()

    os.kill(system.state().pid, signal.SIGKILL)
    until("nobody is left behind", lambda: all(is_gone(pid) for pid in pids))
    assert "Nothing runs" in system.mesh("ps").stderr

    again = system.up_detached()
    assert again.returncode == 0, again.stderr
    assert system.ask(created.headers["location"]).body["name"] == "Ada"

    pids = system.pids()
    assert system.down().stdout == "Stopped.\n"
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert system.leftovers() == []
    assert system.down().stdout == f"Nothing runs on {system.data_dir}.\n"


def test_a_process_that_does_not_start_shows_its_log_and_leaves_nothing(system: System) -> None:
    failed = mesh(
        "up", "--port", str(system.port), "--data-dir", str(system.data_dir), MESH_REGISTRY__LEASE_SECONDS="1"
    )
    assert failed.returncode == 1
    assert "ended while starting" in failed.stderr
    assert "lease_seconds" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert system.leftovers() == []
    with socket.create_server(("127.0.0.1", system.port)):
        """The port is free again."""
