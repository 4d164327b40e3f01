"""What a scenario counted, printed below the results, whether it passed or not."""

from __future__ import annotations

import pytest

from tests.faults.journal import Note

_COUNTED = "counted"


def note_of(request: pytest.FixtureRequest) -> Note:
    # A property travels with the test's report, from whichever worker ran it.
    properties = request.node.user_properties
    return lambda what: properties.append((_COUNTED, f"{request.node.name}: {what}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    calls = [report for report in reports if isinstance(report, pytest.TestReport) and report.when == "call"]
    notes = [what for report in calls for name, what in report.user_properties if name == _COUNTED]
    if notes:
        terminalreporter.section("what the failure suite counted")
        for line in notes:
            terminalreporter.line(str(line))
