"""``mesh events``: what is published, how far behind who hears it is, and what nobody could handle."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from app import redis_client
from app.cli import dead, outboxes, running, tail, terminal
from app.cli.running import DataDir, System
from app.errors import InvalidInput
from app.events.operating.survey import Standing, Survey
from app.events.operating.surveyor import Surveyor
from app.events.publishing.ledger import Backlog
from app.mesh.coordination import open_line
from app.mesh.keys import Keys
from app.service import discover, load

T = TypeVar("T")

HEADINGS = ("EVENTS OF", "GROUP", "WAITING", "OPEN", "OLDEST", "HANDLED BY")
AGAIN = "(again)"
_REDIS_SECONDS = 2.0


def register(mesh: typer.Typer) -> None:
    events = typer.Typer(
        help="What is published, how far behind who hears it is, and what nobody could handle.", no_args_is_help=True
    )
    events.command("tail")(tail.tail)
    events.command("lag")(lag)
    events.command("forget")(forget)
    dead.register(events)
    mesh.add_typer(events, name="events")


def lag(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
    most: Annotated[
        int | None, typer.Option("--max", min=0, metavar="N", help="The code is 1 if a group has more still to do.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Say how many events each group has still to handle, who does it, and what waits in the outboxes.

    WAITING: not handed out yet. OPEN: handed out, and not finished. "(again)": dead letters that were replayed.
    An outbox is shown if its database is reached from here.
    """
    system = running.find_quietly(data_dir)
    survey = asyncio.run(_ask(system, lambda surveyor: surveyor.survey()))
    backlogs = asyncio.run(outboxes.backlogs(system.settings, map(load, discover())))
    if as_json:
        typer.echo(json.dumps(_describe(survey, backlogs), indent=2))
    else:
        _print(survey, backlogs)
    if most is not None and any(standing.behind > most for standing in survey.standings):
        raise typer.Exit(1)


def forget(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A service that does not handle events any more.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="It is meant.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Keep no events any more for a service that is gone: until then the streams hold what it has not handled.

    Should it come back, it begins with what is there then.
    """
    if not yes:
        raise InvalidInput(f"What {group} has not handled may be trimmed then; say --yes if that is meant")
    removed = asyncio.run(_ask(running.find_quietly(data_dir), lambda surveyor: surveyor.forget(group)))
    typer.echo(f"{group} was removed from {removed} streams")


async def _ask(system: System, question: Callable[[Surveyor], Awaitable[T]]) -> T:
    async with _opened(system) as surveyor:
        return await question(surveyor)


@asynccontextmanager
async def _opened(system: System) -> AsyncIterator[Surveyor]:
    keys = Keys(system.settings.registry.namespace)
    async with (
        open_line(system.redis_url, timeout_seconds=_REDIS_SECONDS) as line,
        redis_client.open_async(system.redis_url, timeout_seconds=_REDIS_SECONDS) as client,
    ):
        yield Surveyor(line, client, keys)


def _describe(survey: Survey, backlogs: Mapping[str, Backlog]) -> dict[str, Any]:
    now_ms = int(time.time() * 1000)
    return {
        "groups": [standing.describe(now_ms) for standing in survey.standings],
        "dead": dict(survey.dead),
        "outboxes": {
            service: {"waiting": backlog.waiting, "oldest_seconds": _seconds_since(backlog.oldest)}
            for service, backlog in backlogs.items()
        },
    }


def _print(survey: Survey, backlogs: Mapping[str, Backlog]) -> None:
    now_ms = int(time.time() * 1000)
    if survey.standings:
        terminal.print_table(HEADINGS, [_row(standing, now_ms) for standing in survey.standings])
    else:
        typer.echo("Nobody hears events.")
    for service, backlog in backlogs.items():
        if backlog.waiting:
            since = _age(_seconds_since(backlog.oldest))
            typer.echo(f"Outbox of {service}: {backlog.waiting} waiting, the oldest for {since}")
    for group, count in survey.dead.items():
        typer.echo(f"Dead letters of {group}: {count}; `mesh events dead list {group}`")


def _row(standing: Standing, now_ms: int) -> tuple[str, ...]:
    return (
        standing.service or AGAIN,
        standing.group,
        str(standing.waiting),
        str(standing.open),
        _age(standing.oldest_seconds(now_ms)),
        _owners(standing.owners),
    )


def _owners(owners: Mapping[int, str | None]) -> str:
    """As in ``orders-1: 0 2 3, nobody: 1``."""
    by_owner: dict[str, list[str]] = {}
    for partition, owner in owners.items():
        by_owner.setdefault(owner or "nobody", []).append(str(partition))
    return ", ".join(f"{owner}: {' '.join(numbers)}" for owner, numbers in sorted(by_owner.items()))


def _seconds_since(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
