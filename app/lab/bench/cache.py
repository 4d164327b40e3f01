"""`cache`: what a hit takes, in this process and in Redis, and how many loads a crowd's misses make."""

from __future__ import annotations

import orjson

from app.lab.bench import child
from app.lab.bench.lab import Lab
from app.lab.bench.model import Limit, Metric, Result, Sample, Subject
from app.lab.figures import Goal

CHILD = "app.lab.bench.hits"
CROWD = 1_000
PROCESSES = 4

LOCAL = Subject("local", "a hit in this process")
REMOTE = Subject("remote", "a hit in Redis")
MISSES = Subject("misses", f"{CROWD:,} concurrent misses of one key, from {PROCESSES} caches")

SUBJECTS = (LOCAL, REMOTE, MISSES)
METRICS = (
    Metric("cpu_us", "CPU µs each", 2),
    Metric("wall_us", "µs each", 2),
    Metric("loads", "loads"),
)
# Far beyond what it takes; it ends a run that hangs.
_MOST_SECONDS = 300.0


async def run(lab: Lab) -> Result:
    options = lab.options
    await lab.require_redis()
    lab.tell(f"cache  {options.rounds} rounds")
    arguments = {"core": lab.cores.server, "rounds": options.rounds, "calls": options.calls}
    printed = await child.output_of(
        CHILD,
        *(f"--{name}={value}" for name, value in arguments.items()),
        environment=lab.environment,
        seconds=_MOST_SECONDS,
    )
    return Result(
        "cache",
        "The cache: a value of one user, as JSON",
        (f"Hits one after the other; the {PROCESSES} caches of the crowd share nothing but Redis.",),
        SUBJECTS,
        METRICS,
        tuple(Sample(**sample) for sample in orjson.loads(printed)),
        limits=(Limit(MISSES.key, "loads", Goal("at most", 1)),),
    )
