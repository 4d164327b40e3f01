"""What is printed below the results: what scenarios counted, whether they passed or not, and why tests were skipped."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.journal import Note

_COUNTED = "counted"


def note_of(request: pytest.FixtureRequest) -> Note:
    # A property travels with the test's report, from whichever worker ran it.
    properties = request.node.user_properties
    return lambda what: properties.append((_COUNTED, f"{request.node.name}: {what}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _write("what the failure suite counted", _notes(terminalreporter), terminalreporter)
    # pytest's own list has a line for each test: without a MySQL, those are hundreds for one reason.
    _write("skipped", _reasons(terminalreporter), terminalreporter)


def _notes(reporter: pytest.TerminalReporter) -> list[str]:
    reports = [report for outcome in ("passed", "failed") for report in reporter.getreports(outcome)]
    calls = [report for report in reports if isinstance(report, pytest.TestReport) and report.when == "call"]
    return [str(what) for report in calls for name, what in report.user_properties if name == _COUNTED]


def _reasons(reporter: pytest.TerminalReporter) -> list[str]:
    details = [report.longrepr for report in reporter.getreports("skipped")]
    reasons = Counter(str(detail[2]) if isinstance(detail, tuple) else str(detail) for detail in details)
    return [f"{count} × {reason.removeprefix('Skipped: ')}" for reason, count in reasons.most_common()]


def _write(title: str, lines: list[str], reporter: pytest.TerminalReporter) -> None:
    if lines:
        reporter.section(title)
        for line in lines:
            reporter.line(line)
