"""Each service keeps what its OpenAPI document promises, whatever it is sent: schemathesis against a whole system."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dev.system import System

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp("contract") / "data")
    try:
        system.up()
        yield system
    finally:
        system.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("service", ["users", "inventory", "orders"])
def test_nothing_that_is_sent_makes_a_service_break_its_contract(system: System, service: str, tmp_path: Path) -> None:
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{system.url}/docs/{service}.json"),
        *("--url", system.url, "--checks", CHECKS, "--max-examples", "12", "--seed", "7", "--no-color"),
        *("--header", f"Authorization: Bearer {system.token()}"),
    ]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert finished.returncode == 0, finished.stdout[-4000:]
    assert "passed" in finished.stdout
