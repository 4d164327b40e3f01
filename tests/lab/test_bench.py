"""The bench as a whole: real servers, its shortest form, no figure asserted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.settings import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bench reads /proc")

PATIENCE_SECONDS = 60.0
BENCH = [sys.executable, "-m", "app.lab.bench"]


def bench(*arguments: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BENCH, *arguments],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_a_quick_run_writes_tables_samples_and_a_picture(redis_url: str, tmp_path: Path) -> None:
    samples, drawing = tmp_path / "samples.json", tmp_path / "picture.svg"
    only = ["--only", "ours", "--only", "bare"]
    ran = bench("--quick", "json", *only, "--json", str(samples), "--picture", str(drawing), redis_url=redis_url)
    assert ran.returncode == 0, ran.stderr
    assert "json 1/1" in ran.stderr
    assert "CPU µs/request" in ran.stdout
    document = json.loads(samples.read_text())
    measured = document["benchmarks"]["json"]
    assert [sample["subject"] for sample in measured["samples"]] == ["ours", "bare"]
    assert set(measured["samples"][0]["figures"]) == {metric["key"] for metric in measured["metrics"]}
    assert all(sample["figures"]["cpu_us"] > 0 and sample["figures"]["errors"] == 0 for sample in measured["samples"])
    assert [(ratio["comparison"]["ours"], ratio["verdict"]) for ratio in measured["ratios"]] == [("ours", "no goal")]
    assert {"python", "cpu", "server_core", "load_core", "packages"} <= set(document["machine"])
    assert document["options"]["rounds"] == 1
    assert drawing.read_text().startswith("<svg")


def test_waiting_hopping_and_calling_are_measured_without_an_error(redis_url: str, tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    files = ["--json", str(samples), "--picture", str(tmp_path / "picture.svg")]
    ran = bench("--quick", "wait", "hop", "mesh-call", "--only", "service", *files, redis_url=redis_url)
    assert ran.returncode == 0, ran.stderr
    measured = json.loads(samples.read_text())["benchmarks"]
    assert measured["wait"]["medians"]["service@100"]["errors"] == 0
    assert measured["hop"]["medians"]["service"]["per_second"] > 0
    assert set(measured["mesh-call"]["medians"]) == {"aiohttp", "mesh", "pick-10", "pick-1000", "permit"}


def test_a_thousand_misses_in_four_caches_make_one_load(redis_url: str, tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    files = ["--json", str(samples), "--picture", str(tmp_path / "picture.svg")]
    ran = bench("--quick", "cache", *files, "--strict", redis_url=redis_url)
    assert ran.returncode == 0, ran.stderr
    medians = json.loads(samples.read_text())["benchmarks"]["cache"]["medians"]
    assert medians["misses"]["loads"] == 1
    assert 0 < medians["local"]["cpu_us"] < medians["remote"]["cpu_us"]


def test_who_asks_is_known_and_tokens_are_given_without_an_error(redis_url: str, tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    files = ["--json", str(samples), "--picture", str(tmp_path / "picture.svg")]
    ran = bench("--quick", "guard", "tokens", "ended", *files, redis_url=redis_url)
    assert ran.returncode == 0, ran.stderr
    measured = json.loads(samples.read_text())["benchmarks"]
    assert {key: figures["errors"] for key, figures in measured["guard"]["medians"].items()} == {
        "open": 0,
        "known": 0,
        "checked": 0,
    }
    assert all(figures["errors"] == 0 < figures["per_second"] for figures in measured["tokens"]["medians"].values())
    assert measured["ended"]["medians"]["boards"]["p50_ms"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*BENCH, "json", "--only", "bare", "--seconds", "600", "--picture", str(tmp_path / "picture.svg")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = wait_for_server(running.pid)
        running.send_signal(number)
        assert running.wait(PATIENCE_SECONDS) == 130
        assert not Path(f"/proc/{server}").exists()
    finally:
        running.kill()
        running.wait()


def test_an_unknown_name_is_refused_with_the_known_ones(redis_url: str) -> None:
    ran = bench("jsno", redis_url=redis_url)
    assert ran.returncode == 2
    assert "json, wait, hop, mesh-call, fleet, cache, guard, tokens, ended" in ran.stderr


def test_a_benchmark_of_the_mesh_without_redis_says_so(tmp_path: Path) -> None:
    ran = bench("--quick", "mesh-call", "--picture", str(tmp_path / "p.svg"), redis_url="redis://127.0.0.1:1/0")
    assert ran.returncode == 1
    assert "Redis" in ran.stderr
    assert "Traceback" not in ran.stderr


def wait_for_server(pid: int) -> str:
    """The bench's server process: another child may live for a moment while libraries are imported."""
    end = time.monotonic() + PATIENCE_SECONDS
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        for child in listing.read_text().split():
            if b"app.lab.bench.serve" in command_of(child):
                return child
        assert time.monotonic() < end, "it started nothing"
        time.sleep(0.01)


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
