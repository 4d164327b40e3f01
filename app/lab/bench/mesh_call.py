"""`mesh-call`: what the mesh client adds to a call over bare aiohttp; what picking a peer and a breaker take of it."""

from __future__ import annotations

import orjson

from app.lab.bench import child
from app.lab.bench.lab import Lab
from app.lab.bench.model import Comparison, Metric, Result, Sample, Subject
from app.lab.figures import Goal

CALLER = "app.lab.bench.calls"
CONCURRENCY = 64
CREW = (10, 1000)

AIOHTTP = Subject("aiohttp", "a call with aiohttp alone")
MESH = Subject("mesh", "a call through the mesh client")
PICKS = tuple(Subject(f"pick-{many}", f"picking among {many:,} peers, and settling") for many in CREW)

PERMIT = Subject("permit", "a breaker's permit, and its success")

SUBJECTS = (AIOHTTP, MESH, *PICKS, PERMIT)
METRICS = (Metric("cpu_us", "CPU µs each", 2), Metric("per_second", "per second", lower_is_better=False))
COST = Goal("at most", 1.3)

# Far beyond what it takes; it ends a run that hangs.
_MOST_SECONDS = 300.0


async def run(lab: Lab) -> Result:
    options = lab.options
    async with lab.peer() as peer:
        lab.tell(f"mesh-call  {options.rounds} rounds of {options.calls:,} calls each")
        arguments = {"core": lab.cores.server, "rounds": options.rounds, "calls": options.calls}
        printed = await child.output_of(
            CALLER,
            peer.url,
            *(f"--{name}={value}" for name, value in arguments.items()),
            environment=lab.environment,
            seconds=_MOST_SECONDS,
        )
    return Result(
        "mesh-call",
        f"Calls to a peer that answers at once, {CONCURRENCY} at a time, within one process",
        ("Both read the whole body and parse it as JSON; the mesh client's call passes on an id and a deadline.",),
        SUBJECTS,
        METRICS,
        tuple(Sample(**sample) for sample in orjson.loads(printed)),
        (Comparison(MESH.key, AIOHTTP.key, ("cpu_us", "per_second"), COST, as_cost=True),),
    )
