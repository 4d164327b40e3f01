"""`fleet`: the registry under many: how soon a change reaches all who watch, what that costs Redis, and ten thousand."""

from __future__ import annotations

import orjson

from app.lab.bench import child
from app.lab.bench.lab import Lab
from app.lab.bench.model import Limit, Metric, Result, Sample, Subject
from app.lab.figures import Goal

CHILD = "app.lab.bench.crowd"
PARTS = ("watchers", "crowd")
WATCHERS = 100
INSTANCES = 10_000

CHANGE = Subject("change", f"a change reaching {WATCHERS} directories")
STEADY = Subject("steady", f"{WATCHERS} registered instances, nothing happens")
CROWD = Subject("crowd", f"{INSTANCES:,} registered instances")

SUBJECTS = (CHANGE, STEADY, CROWD)
METRICS = (
    Metric("p50_ms", "p50 ms", 1),
    Metric("p99_ms", "p99 ms", 1),
    Metric("commands", "Redis commands per instance and second", 2),
    Metric("snapshot_ms", "snapshot ms"),
    Metric("stall_ms", "longest stall of the loop, ms", 1),
    Metric("memory_mib", "MiB", 1),
)
# Far beyond what it takes; it ends a run that hangs.
_MOST_SECONDS = 600.0


async def run(lab: Lab) -> Result:
    options = lab.options
    await lab.require_redis()
    samples: list[Sample] = []
    for number in range(1, options.rounds + 1):
        for part in PARTS:
            samples += await _measure(lab, part, number)
    return Result(
        "fleet",
        "The registry under many",
        (
            "All directories stand in one process, on one core: they decode each change one after the other.",
            "Commands: all that Redis was asked meanwhile, less what it was asked before the fleet came.",
            "A crowd's snapshot: from the first byte asked to the table that requests read, on a loop that also serves.",
        ),
        SUBJECTS,
        METRICS,
        tuple(samples),
        limits=(
            Limit(CHANGE.key, "p99_ms", Goal("at most", 50)),
            Limit(STEADY.key, "commands", Goal("at most", 1)),
        ),
    )


async def _measure(lab: Lab, part: str, number: int) -> list[Sample]:
    """One round of a part, in a process of its own: memory that was once taken would not show a second time."""
    lab.tell(f"fleet {number}/{lab.options.rounds}  {part}")
    arguments = {"core": lab.cores.server, "round": number, "seconds": 4 * lab.options.seconds}
    printed = await child.output_of(
        CHILD,
        part,
        *(f"--{name}={value}" for name, value in arguments.items()),
        environment=lab.environment,
        seconds=_MOST_SECONDS,
    )
    return [Sample(**sample) for sample in orjson.loads(printed)]
