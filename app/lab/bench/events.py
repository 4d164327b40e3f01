"""`events`: from a committed transaction to its effect in another: how many in a second, and how soon."""

from __future__ import annotations

import orjson

from app.lab.bench import child, databases
from app.lab.bench.lab import Lab
from app.lab.bench.model import Metric, Result, Sample, Subject

CHILD = "app.lab.bench.flow"

SQLITE = Subject("sqlite", "SQLite")
POSTGRESQL = Subject("postgresql", "PostgreSQL")
SUBJECTS = (SQLITE, POSTGRESQL)
METRICS = (
    Metric("per_second", "events/s, published and handled at once", lower_is_better=False),
    Metric("handled_per_second", "events/s, handled from a backlog", lower_is_better=False),
    Metric("p50_ms", "commit to effect, p50 ms", 1),
    Metric("p99_ms", "p99 ms", 1),
)
_MOST_SECONDS = 600.0


async def run(lab: Lab) -> Result:
    await lab.require_redis()
    samples: list[Sample] = []
    subjects = lab.options.chosen(SUBJECTS)
    async with databases.postgresql() as postgres:
        if postgres is None:
            lab.tell("events  there is no PostgreSQL: POSTGRES_URL names one")
            subjects = tuple(subject for subject in subjects if subject is not POSTGRESQL)
        for number in range(1, lab.options.rounds + 1):
            for subject in subjects:
                url = f"sqlite+aiosqlite:///{lab.data_dir}/events-{number}.sqlite3" if subject is SQLITE else postgres
                samples.append(Sample(subject.key, number, await _measure(lab, url or "", number)))
                lab.report("events", number, subject, samples[-1].figures)
    return Result(
        "events",
        "One event per transaction, 32 at once; each takes effect in a transaction of its own, with the inbox",
        (
            "Outbox, relay and handlers in one process on one core; in production handlers have processes of their own.",
            "Commit to effect: one event after another, each awaited, from its commit to the commit of what it caused.",
        ),
        subjects,
        METRICS,
        tuple(samples),
    )


async def _measure(lab: Lab, url: str, number: int) -> dict[str, float]:
    printed = await child.output_of(
        CHILD,
        f"--core={lab.cores.server}",
        f"--events={lab.options.calls // 2}",
        f"--round={number}",
        environment={**lab.environment, "DATABASE_URL": url},
        seconds=_MOST_SECONDS,
    )
    figures: dict[str, float] = orjson.loads(printed)
    return figures
