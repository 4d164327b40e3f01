from __future__ import annotations

import asyncio
import json
import logging
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from app import context, settings, telemetry
from app.context import Context
from app.mesh.observer import Attempt, DirectoryChange, Observer, RegistryContact
from app.settings import Settings
from app.telemetry import MeshMetrics, Metrics

SECRET = "hunter2-s3cret"

Lines = Callable[[], list[dict[str, Any]]]


def configured(**overrides: object) -> Settings:
    loaded = settings.load(**{"log_format": "json", "log_level": "info", **overrides})
    telemetry.configure(loaded, service="users", instance="users-1")
    return loaded


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """What has been logged since the last call, each line parsed; nothing else may stand on stderr."""
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_one_event_is_one_json_line_with_its_place_and_time(lines: Lines) -> None:
    configured()
    telemetry.log("mesh.directory").info("peers changed", service_name="orders", count=3)
    [line] = lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "peers changed",
        "logger": "mesh.directory",
        "service": "users",
        "instance": "users-1",
        "service_name": "orders",
        "count": 3,
    }


def test_nothing_is_written_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    telemetry.log("x").error("event")
    assert capsys.readouterr().out == ""


def test_line_breaks_in_an_event_stay_in_its_line(lines: Lines) -> None:
    configured()
    telemetry.log("x").info("two\nlines\r\n", path="/a\nb")
    assert [line["event"] for line in lines()] == ["two\nlines\r\n"]


def test_the_request_id_of_the_current_request_stands_on_the_line(lines: Lines) -> None:
    configured()
    log = telemetry.log("x")
    with context.activate(Context("r-17")):
        log.info("inside")
    log.info("outside")
    inside, outside = lines()
    assert inside["request_id"] == "r-17"
    assert "request_id" not in outside


def test_a_logger_made_at_import_time_follows_the_later_configuration(lines: Lines) -> None:
    log = telemetry.log("early")
    log.info("too early to matter")
    log.warning("early, but it matters")
    configured()
    log.info("now")
    configured(log_level="warning")
    log.info("too detailed")
    log.warning("still there")
    assert [line["event"] for line in lines()] == ["early, but it matters", "now", "still there"]


def test_a_level_that_is_off_costs_no_rendering(lines: Lines) -> None:
    configured()

    class Untouchable:
        def __repr__(self) -> str:
            raise AssertionError("rendered")

    telemetry.log("x").debug("detail", value=Untouchable())
    assert lines() == []


def test_an_exception_is_a_field_of_its_line_and_shows_no_local_variable(lines: Lines) -> None:
    configured()

    def fail() -> None:
        harmless_name = SECRET
        raise ValueError(f"no {len(harmless_name)}")

    try:
        fail()
    except ValueError:
        telemetry.log("x").exception("it failed")
    [line] = lines()
    assert line["level"] == "error"
    assert line["exception"][0]["exc_type"] == "ValueError"
    assert line["exception"][0]["frames"][-1]["name"] == "fail"
    assert SECRET not in json.dumps(line)


def test_the_cause_of_an_exception_is_told(lines: Lines) -> None:
    configured()
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error
    except RuntimeError:
        telemetry.log("x").exception("it failed")
    [line] = lines()
    assert [e["exc_type"] for e in line["exception"]] == ["RuntimeError", "KeyError"]


@pytest.mark.parametrize("name", ["hypercorn.error", "asyncio", "aiohttp.client", "some.library"])
def test_the_standard_librarys_loggers_write_the_same_lines(lines: Lines, name: str) -> None:
    configured()
    try:
        raise OSError("disk")
    except OSError:
        logging.getLogger(name).exception("Error in %s", "framework")
    logging.getLogger(name).debug("too detailed")
    [line] = lines()
    assert (line["level"], line["event"], line["logger"]) == ("error", "Error in framework", name)
    assert line["exception"][0]["exc_type"] == "OSError"
    assert line["service"] == "users"


def test_a_level_between_the_named_ones_and_a_broken_format_still_give_no_exception(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logging.getLogger("odd").log(25, "notice")
    logging.getLogger("odd").log(99, "beyond")
    logging.getLogger("odd").error("%d", "no number")
    assert [line["level"] for line in lines()] == ["info", "critical"]


def test_a_python_warning_is_one_line(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configured()
        warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
    [line] = lines()
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")


def test_configuring_twice_does_not_write_twice(lines: Lines) -> None:
    configured()
    configured()
    logging.getLogger("hypercorn.error").warning("once")
    assert len(lines()) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"password": SECRET},
        {"Authorization": SECRET},
        {"set_cookie": SECRET},
        {"access_token": SECRET},
        {"client_secret": [SECRET]},
        {"X-Api-Key": SECRET},
        {"headers": {"authorization": SECRET}},
        {"headers": {"Cookie": SECRET.encode()}},
        {"items": [{"user": {"password": SECRET}}]},
        {"url": f"redis://:{SECRET}@127.0.0.1:6379/0"},
        {"url": f"postgresql+asyncpg://users:{SECRET}@db/users"},
        {"url": f"postgresql://users:p@{SECRET}@db/users"},
        {"raw": f"redis://:{SECRET}@h".encode()},
        {"path": f"/callback?state=1&access_token={SECRET}&x=2"},
        {"detail": f"sent Bearer {SECRET}"},
        {"error": ConnectionError(f"cannot reach redis://:{SECRET}@h")},
        {"deep": [[[[[[[[[[{"password": SECRET}]]]]]]]]]]},
    ],
)
def test_a_secret_is_never_written(lines: Lines, fields: dict[str, Any]) -> None:
    configured()
    telemetry.log("x").info("event", **fields)
    [line] = lines()
    assert SECRET not in json.dumps(line)


def test_a_secret_in_the_event_or_in_an_exceptions_message_is_never_written(lines: Lines) -> None:
    configured()
    url = f"amqp://u:{SECRET}@h/"
    telemetry.log("x").info(f"connecting to {url}")
    logging.getLogger("redis").warning("retrying %s", url)
    try:
        raise ConnectionError(url)
    except ConnectionError:
        telemetry.log("x").exception("away")
    assert SECRET not in json.dumps(lines())


def test_what_is_no_secret_stays_as_it_is(lines: Lines) -> None:
    configured()
    fields = {
        "url": "http://127.0.0.1:8001/users/7?page=2",
        "mail": "a@example.org",
        "author": "me",
        "has_password": True,
        "token": None,
        "status": 200,
        "share": 0.5,
        "peers": ["a", "b"],
    }
    telemetry.log("x").info("event", **fields)
    [line] = lines()
    assert {key: line[key] for key in fields} == fields


def test_values_that_json_does_not_know_still_give_a_line(lines: Lines) -> None:
    configured()

    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    loop: list[Any] = []
    loop.append(loop)
    values = {"big": 2**80, "text": "\ud800", "odd": Hostile(), "keys": {(1, 2): 3, 4: 5}, "loop": loop, "set": {1}}
    for name, value in values.items():
        telemetry.log("x").info("event", **{name: value})
    written = lines()
    assert len(written) == len(values)
    assert written[0]["big"] == 2**80
    assert written[0]["timestamp"][:2] == "20"
    assert "unprintable" in written[2]["odd"]


def test_a_stderr_that_is_gone_does_not_fail_the_one_who_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    configured()
    for stream in (None, object()):
        monkeypatch.setattr("sys.stderr", stream)
        telemetry.log("x").info("into the void")


def test_lines_of_many_threads_do_not_mix(lines: Lines) -> None:
    configured()
    together = threading.Barrier(4)

    def write(number: int) -> None:
        together.wait()
        for _ in range(200):
            telemetry.log(f"thread.{number}").info("event", filler="x" * 500)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 800


def test_the_console_shows_readable_lines_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format="console")
    try:
        raise ValueError("because")
    except ValueError:
        telemetry.log("mesh").exception("it failed", password=SECRET)
    shown = capsys.readouterr().err
    assert "it failed" in shown
    assert "Traceback" in shown
    assert not shown.startswith("{")
    assert SECRET not in shown


def test_auto_is_json_where_nobody_watches(lines: Lines) -> None:
    configured(log_format="auto")
    telemetry.log("x").info("event")
    assert lines()[0]["event"] == "event"


async def test_a_task_that_fails_unobserved_is_one_line(lines: Lines) -> None:
    configured()
    asyncio.get_running_loop().call_exception_handler({"message": "never retrieved", "exception": ValueError("x")})
    [line] = lines()
    assert (line["logger"], line["exception"][0]["exc_type"]) == ("asyncio", "ValueError")


# ------------------------------------------------------------------------------------------------ metrics


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Label values (without the service) → value, of the one metric."""
    return {
        tuple(value for key, value in sample.labels.items() if key != "service"): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_requests_are_counted_and_timed() -> None:
    metrics = Metrics(service="users")
    for seconds in (0.003, 0.2):
        metrics.observe_request(method="GET", route="/users/<int:user_id>", status=200, seconds=seconds)
    metrics.observe_request(method="GET", route="/users/<int:user_id>", status=404, seconds=0.2)
    assert samples(metrics, "mesh_requests_total") == {
        ("GET", "/users/<int:user_id>", "200"): 2,
        ("GET", "/users/<int:user_id>", "404"): 1,
    }
    assert samples(metrics, "mesh_request_duration_seconds_count") == {("GET", "/users/<int:user_id>"): 3}
    buckets = samples(metrics, "mesh_request_duration_seconds_bucket")
    assert buckets["GET", "/users/<int:user_id>", "0.005"] == 1


def test_methods_and_routes_that_clients_make_up_do_not_make_new_series() -> None:
    metrics = Metrics(service="users")
    for n in range(2000):
        metrics.observe_request(method=f"METHOD{n}", route="", status=405, seconds=0.001)
        metrics.observe_request(method="GET", route=f"/users/{n}", status=200, seconds=0.001)
    counted = samples(metrics, "mesh_requests_total")
    assert counted["OTHER", "", "405"] == 2000
    assert len(counted) <= 502
    assert sum(counted.values()) == 4000
    assert len(metrics._children) <= 502


def test_requests_in_flight_go_up_and_come_down_again() -> None:
    metrics = Metrics(service="users")
    with metrics.in_flight.track(), suppress(RuntimeError):
        metrics.in_flight.inc()
        assert samples(metrics, "mesh_requests_in_flight") == {(): 2}
        metrics.in_flight.dec()
        raise RuntimeError
    assert samples(metrics, "mesh_requests_in_flight") == {(): 0}
    assert metrics.in_flight.value == 0


def test_the_rendered_text_is_what_prometheus_reads() -> None:
    metrics = Metrics(service="users")
    metrics.observe_request(method="GET", route="/", status=200, seconds=0.01)
    metrics.observe_loop_lag(0.25)
    body, content_type = metrics.render()
    text = body.decode()
    assert content_type.startswith("text/plain")
    assert 'mesh_requests_total{method="GET",route="/",service="users",status="200"} 1.0' in text
    assert "mesh_event_loop_lag_seconds 0.25" in text
    for name in ("process_cpu_seconds_total", "python_info", "python_gc_collections_total"):
        assert f"\n{name}" in text
    assert "_created" not in text


def test_two_instances_in_one_process_do_not_share_their_numbers() -> None:
    one, other = Metrics(service="users"), Metrics(service="users")
    one.observe_request(method="GET", route="/", status=200, seconds=0.01)
    assert samples(other, "mesh_requests_total") == {}


def attempt(**overrides: Any) -> Attempt:
    made = Attempt("orders", "orders-1", "GET", number=1, status=200, error="", seconds=0.004, retrying=False)
    return made._replace(**overrides)


def test_the_mesh_is_observed() -> None:
    metrics = Metrics(service="users")
    observer: Observer = MeshMetrics(metrics)
    observer.attempt(attempt(status=0, error="peer_unreachable", retrying=True))
    observer.attempt(attempt(instance="orders-2", number=2))
    observer.directory_changed(DirectoryChange("snapshot", "e1", seq=7, services=2, instances=3))
    observer.registry_contact(RegistryContact("presence", healthy=True))
    observer.registry_contact(RegistryContact("directory", healthy=False))
    assert samples(metrics, "mesh_attempts_total") == {
        ("orders", "GET", "peer_unreachable"): 1,
        ("orders", "GET", "200"): 1,
    }
    assert samples(metrics, "mesh_retries_total") == {("orders",): 1}
    assert samples(metrics, "mesh_attempt_duration_seconds_count") == {("orders",): 2}
    assert samples(metrics, "mesh_directory_changes_total") == {("snapshot",): 1}
    assert samples(metrics, "mesh_directory_instances") == {(): 3}
    assert samples(metrics, "mesh_directory_seq") == {(): 7}
    assert samples(metrics, "mesh_registry_reachable") == {("presence",): 1, ("directory",): 0}


def test_instances_that_come_and_go_make_no_new_series() -> None:
    metrics = Metrics(service="users")
    observer = MeshMetrics(metrics)
    for n in range(500):
        observer.attempt(attempt(instance=f"orders-{n}", method=f"M{n}"))
    assert samples(metrics, "mesh_attempts_total") == {("orders", "OTHER", "200"): 500}
    assert observer._children == {}
