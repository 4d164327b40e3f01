"""``mesh events dead``: what nobody could handle: looked at, handed out again, or removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import typer

from app import redis_client
from app.cli import running, terminal
from app.cli.running import DataDir, System
from app.cli.tail import printable
from app.errors import InvalidInput
from app.events.operating.dead import FIRST, DeadLetters, Letter
from app.events.operating.surveyor import Surveyor
from app.mesh.coordination import Line, open_line
from app.mesh.keys import Keys

T = TypeVar("T")

HEADINGS = ("SERVICE", "ID", "SINCE", "TYPE", "TRIES", "ERROR")
_REDIS_SECONDS = 2.0

ServiceName = Annotated[str, typer.Argument(metavar="SERVICE", help="That could not handle it.", show_default=False)]
LetterId = Annotated[str, typer.Argument(metavar="ID", help="As `mesh events dead list` has it.", show_default=False)]
OneId = Annotated[str | None, typer.Argument(metavar="[ID]", help="As `list` has it.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All that are there now.")]


def register(events: typer.Typer) -> None:
    dead = typer.Typer(help="What nobody could handle: looked at, handed out again, or removed.", no_args_is_help=True)
    dead.command("list")(show_list)
    dead.command("show")(show)
    dead.command("replay")(replay)
    dead.command("drop")(drop)
    events.add_typer(dead, name="dead")


def show_list(
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="[default: all of them]", show_default=False)
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many of each service, the oldest first.")] = 100,
    after: Annotated[str, typer.Option(metavar="ID", help="Only those behind it.", show_default=False)] = FIRST,
    data_dir: DataDir = None,
) -> None:
    """List dead letters, without what is in the events: that may be personal."""
    rows = asyncio.run(_list(running.find_quietly(data_dir), service, limit, after))
    if not rows:
        typer.echo("No dead letters.")
        return
    terminal.print_table(HEADINGS, rows)


def show(service: ServiceName, letter_id: LetterId, *, data_dir: DataDir = None) -> None:
    """Print a dead letter: the event, the error, and where it was raised."""
    letter = _with(running.find_quietly(data_dir), service, lambda letters: letters.show(letter_id))
    for name, value in (
        ("id", letter.id),
        ("since", letter.at),
        ("stream", letter.stream),
        ("tries", str(letter.tries)),
        ("error", f"{letter.error}: {letter.detail}"),
    ):
        typer.echo(f"{name:8}{_printable_lines(value)}")
    typer.echo(_content(letter))
    typer.echo(_printable_lines(letter.trace.rstrip()))


def replay(service: ServiceName, letter_id: OneId = None, *, every: All = False, data_dir: DataDir = None) -> None:
    """Have a dead letter handled again, or all; who handled it before finds that out, so nothing is done twice."""
    _one_or_all(letter_id, every=every)
    system = running.find_quietly(data_dir)
    if letter_id is None:
        typer.echo(f"{_with(system, service, lambda letters: letters.replay_all())} dead letters were replayed")
        return
    _with(system, service, lambda letters: letters.replay(letter_id))
    typer.echo(f"{letter_id} was replayed")


def drop(service: ServiceName, letter_id: OneId = None, *, every: All = False, data_dir: DataDir = None) -> None:
    """Remove a dead letter for good, or all: their events never take effect."""
    _one_or_all(letter_id, every=every)
    system = running.find_quietly(data_dir)
    if letter_id is None:
        typer.echo(f"{_with(system, service, lambda letters: letters.drop_all())} dead letters were dropped")
        return
    _with(system, service, lambda letters: letters.drop(letter_id))
    typer.echo(f"{letter_id} was dropped")


def _one_or_all(letter_id: str | None, *, every: bool) -> None:
    if (letter_id is None) is not every:
        raise InvalidInput("Either the id of a dead letter or --all")


def _with(system: System, service: str, work: Callable[[DeadLetters], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_line(system.redis_url, timeout_seconds=_REDIS_SECONDS) as line:
            return await work(_letters(system, line, service))

    return asyncio.run(run())


async def _list(system: System, service: str | None, limit: int, after: str) -> Sequence[Sequence[str]]:
    async with open_line(system.redis_url, timeout_seconds=_REDIS_SECONDS) as line:
        found = [service] if service is not None else await _groups(system, line)
        return [
            _row(name, letter) for name in found for letter in await _letters(system, line, name).list(limit, after)
        ]


async def _groups(system: System, line: Line) -> Sequence[str]:
    """Whoever has dead letters."""
    async with redis_client.open_async(system.redis_url, timeout_seconds=_REDIS_SECONDS) as client:
        streams = await Surveyor(line, client, Keys(system.settings.registry.namespace)).find()
    return [stream.name for stream in streams if stream.kind == "dead"]


def _letters(system: System, line: Line, service: str) -> DeadLetters:
    return DeadLetters(line, Keys(system.settings.registry.namespace), service, system.settings.events.partitions)


def _row(service: str, letter: Letter) -> tuple[str, ...]:
    what = "unreadable" if letter.event is None else letter.event.type
    return service, letter.id, printable(letter.at[:19]), printable(what), str(letter.tries), printable(letter.error)


def _content(letter: Letter) -> str:
    if letter.event is None:
        return _printable_lines(letter.content.decode("utf-8", "backslashreplace"))
    return json.dumps(json.loads(letter.content), indent=2)


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))
