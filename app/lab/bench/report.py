"""What came of a run: tables for people, JSON for programs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.lab.bench.lab import Options
from app.lab.bench.model import Comparison, Ratio, Result
from app.lab.bench.proc import Cores

# Where there is no terminal there is no width either: nothing is to be folded or cut.
_NO_WIDTH = 10_000
_STYLES = {"met": "green", "missed": "red", "no goal": "dim"}
_PACKAGES = (
    "flask", "werkzeug", "greenlet", "hypercorn", "h11", "uvloop", "asgiref", "aiohttp", "redis",
    "quart", "fastapi", "httpx", "uvicorn", "httptools", "gunicorn", "requests",
)  # fmt: skip


def machine(cores: Cores) -> dict[str, Any]:
    """Where it ran, for whoever compares runs."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "server_core": cores.server,
        "load_core": cores.load,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def as_json(
    results: Sequence[Result], *, machine: dict[str, Any], options: Options, seconds: float, argv: Sequence[str]
) -> dict[str, Any]:
    """Everything that was measured, and what it was measured on; NaN becomes null."""
    return {
        "format": 1,
        "argv": list(argv),
        "seconds": round(seconds, 1),
        "machine": machine,
        "options": asdict(options),
        "benchmarks": {result.name: _result(result) for result in results},
    }


def show(results: Sequence[Result], *, machine: dict[str, Any]) -> None:
    """Print the tables on stdout."""
    console = Console(width=None if sys.stdout.isatty() else _NO_WIDTH, highlight=False, emoji=False, markup=False)
    for result in results:
        console.print(f"\n{result.name}: {result.title}", style="bold")
        console.print(_figures(result))
        if result.comparable or result.limited:
            console.print()
            console.print(_goals(result))
        for note in result.notes:
            console.print(note, style="dim")
    console.print(
        f"\n{machine['cpu']}, server on core {machine['server_core']}, load on core {machine['load_core']}, "
        f"Python {machine['python']}, load average {machine['load_average'][0]} at the start",
        style="dim",
    )


def _figures(result: Result) -> Table:
    judged = result.metrics[0]
    table = _table("median of rounds", *(metric.heading for metric in result.metrics), f"{judged.heading}, span")
    for subject in result.subjects:
        medians = [metric.show(result.median_of(subject.key, metric.key)) for metric in result.metrics]
        all_rounds = result.figures_of(subject.key, judged.key)
        table.add_row(subject.label, *medians, f"{judged.show(min(all_rounds))} – {judged.show(max(all_rounds))}")
    return table


def _goals(result: Result) -> Table:
    labels = {subject.key: subject.label for subject in result.subjects}
    keys = list(dict.fromkeys(key for comparison in result.comparable for key in comparison.metrics))
    table = _table("ours against theirs", *(_times_heading(result, key) for key in keys), "span", "goal", "verdict")
    for ratio in map(result.ratio, result.comparable):
        comparison = ratio.comparison
        name = f"{labels[comparison.ours]}  :  {labels[comparison.other]}"
        times = [f"{ratio.ratios[key]:.2f} ×" if key in ratio.ratios else "" for key in keys]
        style = _STYLES[ratio.verdict]
        table.add_row(name, *times, _span(ratio), _goal(comparison), ratio.verdict, style=style)
    for limit in result.limited:
        worst, verdict = result.worst(limit)
        name, metric = f"{labels[limit.subject]}: {limit.metric}", result.metric(limit.metric)
        blanks = [""] * (len(keys) - 1)
        table.add_row(name, metric.show(worst), *blanks, "", str(limit.goal), verdict, style=_STYLES[verdict])
    return table


def _times_heading(result: Result, key: str) -> str:
    as_cost = any(comparison.as_cost for comparison in result.comparisons)
    return f"{result.metric(key).heading}, {'cost' if as_cost else 'times better'}"


def _span(ratio: Ratio) -> str:
    return f"{ratio.span[0]:.2f} – {ratio.span[1]:.2f}"


def _goal(comparison: Comparison) -> str:
    if comparison.goal is None:
        return ""
    return f"{comparison.goal} ×"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _result(result: Result) -> dict[str, Any]:
    return {
        "title": result.title,
        "notes": list(result.notes),
        "metrics": [asdict(metric) for metric in result.metrics],
        "subjects": [asdict(subject) for subject in result.subjects],
        "samples": [asdict(sample) for sample in result.samples],
        "medians": {
            subject.key: {metric.key: result.median_of(subject.key, metric.key) for metric in result.metrics}
            for subject in result.subjects
        },
        "ratios": [asdict(result.ratio(comparison)) for comparison in result.comparable],
        "limits": [
            {**asdict(limit), "worst": worst, "verdict": verdict}
            for limit in result.limited
            for worst, verdict in [result.worst(limit)]
        ],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
