"""`mesh rollout` and what else an operator does to a running system, with real processes under a steady load."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.dev import steady
from tests.dev.system import System, ask, is_gone, until

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for all tests of this file, of a project whose code may be edited; its data directory has a long name."""
    folder = tmp_path_factory.mktemp("rollout")
    for name in ("app", "config"):
        shutil.copytree(ROOT / name, folder / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Sooner than delivered, so that who is killed is forgotten sooner.
    beat = {"MESH_REGISTRY__HEARTBEAT_SECONDS": "0.5", "MESH_REGISTRY__LEASE_SECONDS": "3"}
    system = System(folder / ("long-" * 20) / "data", folder / "project", **beat)
    try:
        system.up("--replicas", "users=2,gateway=2")
        yield system
    finally:
        system.stop()


@contextmanager
def held_up(system: System, service: str) -> Iterator[None]:
    """Processes of `service` that start meanwhile wait before they prepare its database."""
    with (system.data_dir / "run" / f"prepare-{service}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def joining(system: System) -> int | None:
    """The pid of the successor that is on its way up."""
    return next((p.pid for p in system.state().processes if p.stage == "joining" and p.pid), None)


def listed(system: System, service: str) -> dict[str, dict[str, Any]]:
    """What `mesh ps --json` says of a service's instances, by their ids."""
    members = json.loads(system.typed("ps", "--json").stdout)
    return {member["id"]: member for member in members if member["service"] == service}


def log_of(system: System, instance_id: str) -> Path:
    pid = next(instance.pid for instance in system.members("users") if instance.id == instance_id)
    return next(process.log for process in system.state().processes if process.pid == pid)


def requests_in(log: Path) -> int:
    return log.read_text().count("/users/7")


# ------------------------------------------------------------------------------------------------------------ rollout


@pytest.mark.parametrize(("service", "replicas"), [("users", 2), ("orders", 1), ("gateway", 2)])
def test_a_rollout_replaces_every_replica_and_loses_no_request(running: System, service: str, replicas: int) -> None:
    before = running.pids_of(service)
    with steady.load(running.url, token=running.token()) as tally:
        rolled = running.mesh("rollout", service)
    assert rolled.returncode == 0, rolled.stderr
    assert rolled.stdout.startswith(f"Done: {replicas} ")
    assert tally.failures == {}
    assert min(tally.answered("GET"), tally.answered("POST")) > 0
    after = [process for process in running.state().processes if process.service == service]
    assert [(process.number, process.stage, process.restarts) for process in after] == [
        (number, "serving", 0) for number in range(1, replicas + 1)
    ]
    assert {process.pid for process in after} & set(before) == set()
    assert {instance.pid for instance in running.members(service)} == {process.pid for process in after}


def test_the_only_replica_is_replaced_without_a_gap(running: System) -> None:
    sku = next(item["sku"] for item in running.ask("/inventory").body["items"])
    rollout = running.mesh_in_background("rollout", "inventory", out=running.data_dir / "rollout.out")
    statuses = set()
    while rollout.poll() is None:
        statuses.add(running.ask(f"/inventory/{sku}").status)
    assert (rollout.returncode, statuses) == (0, {200})


def test_what_was_edited_is_served_after_a_rollout_and_a_slip_ends_it(running: System) -> None:
    assert running.project is not None
    code = running.project / "app" / "services" / "orders" / "__init__.py"
    good, before = code.read_text(), running.pid_of("orders")

    code.write_text("raise RuntimeError('a slip of the pen')\n")
    failed = running.mesh("rollout", "orders")
    assert failed.returncode == 1
    assert "RuntimeError: a slip of the pen" in failed.stderr
    assert f"given up; pid {before} serves on" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("mesh: orders-1 ended while starting")
    assert running.pids_of("orders") == [before]
    assert running.ask("/orders").status == 200

    edited = "service.blueprints[0].get('/edited')(public(lambda: {'edited': True}))"
    code.write_text(f"{good}\nfrom app.auth import public\n{edited}\n")
    assert running.mesh("rollout", "orders").returncode == 0
    assert running.ask("/orders/edited").body == {"edited": True}
    # The log of the failed one and that of the one before are there to be read; the running one's has its usual name.
    logs = running.data_dir / "logs"
    assert [p.log for p in running.state().processes if p.service == "orders"] == [logs / "orders-1.log"]
    assert "a slip of the pen" not in (logs / "orders-1.log").read_text()


def test_a_second_rollout_is_refused_and_ctrl_c_of_the_first_lets_it_finish_the_replica_at_hand(
    running: System,
) -> None:
    first, second = running.pids_of("users")
    out = running.data_dir / "interrupted.out"
    with held_up(running, "users"):
        rollout = running.mesh_in_background("rollout", "users", out=out)
        until("a successor starts", lambda: joining(running))
        refused = running.typed("rollout", "--all")
        assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, "mesh: A rollout of users is under way")
        rollout.send_signal(signal.SIGINT)
        assert rollout.wait(30) == 130
        assert "the replica at hand is finished, the others stay as they are" in out.read_text()
    until("the first is replaced", lambda: first not in running.pids_of("users"))
    until("the rollout is over", lambda: "Rollout of users has ended after 1 of its replicas, since" in running.said())
    assert running.pids_of("users")[1:] == [second]


def test_what_does_not_run_here_cannot_be_rolled_out(running: System) -> None:
    refused = running.typed("rollout", "payments")
    assert refused.returncode == 2
    there = "identity, inventory, orders, users, gateway"
    assert refused.stderr == f"mesh: No replica of 'payments' runs here; there are: {there}\n"
    assert running.typed("rollout").returncode == 2


# --------------------------------------------------------------------------------------------------------- the gateway


def test_all_gateways_serve_the_public_port(running: System) -> None:
    gateways = [process for process in running.state().processes if process.service == "gateway"]
    before = [requests_in(gateway.log) for gateway in gateways]

    def all_have_served() -> bool:
        # The kernel chooses whose turn it is.
        assert running.ask("/users/7").status == 200
        return all(requests_in(gateway.log) > count for gateway, count in zip(gateways, before, strict=True))

    until("each of them has served", all_have_served)


# ------------------------------------------------------------------------------------------------------ drain, weight


def test_a_drained_instance_gets_nothing_until_it_is_put_back(running: System) -> None:
    drained, other = (instance.id for instance in running.members("users"))
    with steady.load(running.url, token=running.token()) as tally:
        out = running.mesh("drain", drained[: len("users-") + 6])
    assert (out.returncode, tally.failures) == (0, {}), out.stderr
    assert out.stdout.startswith(f"{drained} is out of the traffic")
    seen = {name: (member["state"], member["share"]) for name, member in listed(running, "users").items()}
    assert seen == {drained: ("draining", 0.0), other: ("ready", 1.0)}
    assert " draining " in running.typed("ps").stdout

    log = log_of(running, drained)
    served = requests_in(log)
    for _ in range(10):
        assert running.ask("/users/7").status == 200
    assert requests_in(log) == served

    back = running.typed("drain", drained, "--undo")
    assert back.stdout.startswith(f"{drained} takes requests again")
    assert {instance.state for instance in running.members("users")} == {"ready"}


def test_a_drain_that_is_not_acknowledged_in_time_says_for_whom_it_waits(running: System) -> None:
    drained = running.members("users")[0].id
    deaf = running.members("inventory")[0]
    os.kill(deaf.pid, signal.SIGSTOP)
    try:
        waited = running.typed("drain", drained, "--timeout", "1.5")
    finally:
        os.kill(deaf.pid, signal.SIGCONT)
    assert waited.returncode == 1
    said = f"mesh: It was not so in time, still waiting for inventory:{deaf.id} to acknowledge it; the wish stands"
    assert waited.stderr.splitlines()[-1] == said
    assert running.typed("drain", drained, "--undo").returncode == 0


def test_a_drained_gateway_says_so_and_goes_on_serving_strangers(running: System) -> None:
    gateway = running.members("gateway")[0]
    with steady.load(running.url, token=running.token()) as tally:
        drained = running.typed("drain", gateway.id)
    assert drained.stdout.startswith(f"{gateway.id} drains: its /readyz says so")
    assert ask(f"{gateway.url}/readyz").status == 503
    assert tally.failures == {}
    assert running.typed("drain", gateway.id, "--undo").returncode == 0
    assert ask(f"{gateway.url}/readyz").status == 200


def test_an_instance_must_be_named_well(running: System) -> None:
    unknown = running.typed("drain", "users-nobody")
    said = "mesh: No instance 'users-nobody' is registered; `mesh ps` lists them\n"
    assert (unknown.returncode, unknown.stderr) == (1, said)
    ambiguous = running.typed("inspect", "users-")
    assert ambiguous.returncode == 2
    assert ambiguous.stderr.startswith("mesh: 'users-' could be users-")


def test_a_rule_is_set_shown_and_cleared(running: System) -> None:
    nothing = "users: no rule, by the weight of each instance\n"
    assert running.typed("weight", "users").stdout == nothing
    first, second = (instance.id for instance in running.members("users"))

    assert running.typed("weight", "users", f"{first}=3").stdout == f"users: {first}=3\n"
    assert {name: member["share"] for name, member in listed(running, "users").items()} == {first: 0.75, second: 0.25}
    assert f"Rule of users: {first}=3" in running.typed("ps").stdout.splitlines()

    early = running.typed("weight", "users", "v2=5%")
    assert early.stdout == f"users: v2=5% {first}=3\n"
    assert "no version or instance 'v2' now" in early.stderr
    assert running.typed("weight", "users", "v2=500%").returncode == 2
    assert running.typed("weight", "users", "--clear").stdout == nothing
    assert {member["rule"] for member in listed(running, "users").values()} == {""}


# ---------------------------------------------------------------------------------------------------- run and inspect


def test_mesh_run_joins_what_runs_there_as_a_canary_or_in_a_sandbox(running: System) -> None:
    out = running.data_dir / "canary.out"
    process = running.mesh_in_background("run", "users", "--version", "v2", "--sandbox", "feature-x", out=out)

    def canary() -> dict[str, Any] | None:
        found = (member for member in listed(running, "users").values() if member["sandbox"] == "feature-x")
        return next(found, None)

    try:
        until("it is ready", lambda: (canary() or {}).get("state") == "ready")
        known = canary()
        assert known is not None
        assert (known["pid"], known["version"], known["share"]) == (process.pid, "v2", 1.0)
        assert f"Joining what runs at {running.url}" in out.read_text()
        assert "SANDBOX" in running.typed("ps").stdout
        assert ask(f"{known['url']}/users/7").body["name"] == "User7"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_inspect_prints_what_the_instance_says_and_only_to_who_has_the_token(running: System) -> None:
    for service in ("users", "gateway"):
        instance = running.members(service)[0]
        said = running.typed("inspect", instance.id)
        assert said.returncode == 0, said.stderr
        assert instance.id in json.dumps(json.loads(said.stdout))
        assert ask(f"{instance.url}/_mesh").status == 404
    assert ask(f"{running.url}/_mesh").status == 404


# ------------------------------------------------------------------------- crashes, which the registry forgets slowly


def test_a_replica_that_crashes_while_its_successor_starts_is_started_again_and_then_replaced(running: System) -> None:
    first = running.pid_of("users")
    with held_up(running, "users"):
        rollout = running.mesh_in_background("rollout", "users", out=running.data_dir / "crash.out")
        until("a successor starts", lambda: joining(running))
        os.kill(first, signal.SIGKILL)
        until("it is started again", lambda: running.pid_of("users") not in (0, first))
        revived = running.pid_of("users")
    assert rollout.wait(60) == 0
    assert revived not in running.pids_of("users")
    assert [p.restarts for p in running.state().processes if p.service == "users"] == [1, 0]


def test_a_connection_that_comes_while_every_gateway_is_dead_waits_and_is_answered(running: System) -> None:
    for pid in running.pids_of("gateway"):
        os.kill(pid, signal.SIGKILL)
    # Nobody serves the port now; without the supervisor's socket this would be refused.
    assert running.ask("/users/7").status == 200


def test_the_control_socket_of_a_long_data_directory_lies_elsewhere(running: System) -> None:
    place = running.state().control
    assert place is not None
    assert place.parent != running.data_dir
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


def test_down_in_the_middle_of_a_rollout_leaves_nothing(running: System) -> None:
    # The last test: it stops the system.
    pids, place, out = running.pids(), running.state().control, running.data_dir / "down.out"
    with held_up(running, "users"):
        rollout = running.mesh_in_background("rollout", "users", out=out)
        successor = until("a successor starts", lambda: joining(running))
        assert running.down().stdout == "Stopped.\n"
    assert running.foreground is not None
    assert running.foreground.wait(30) == 0
    assert rollout.wait(30) == 1
    assert out.read_text().splitlines()[-1] == "mesh: The system is being stopped"
    assert [pid for pid in (*pids, successor) if not is_gone(pid)] == []
    assert running.leftovers() == []
    assert place is not None
    assert not place.parent.exists()
