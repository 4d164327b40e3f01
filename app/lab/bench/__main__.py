"""``python -m app.lab.bench [name …]``: run benchmarks, print tables, write JSON and a picture."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop

from app import settings as settings_room
from app.errors import BadInput, PlatformError
from app.lab.bench import (
    cache,
    ended,
    events,
    fleet,
    guard,
    hop,
    json_view,
    mesh_call,
    picture,
    proc,
    reads,
    report,
    tokens,
    wait,
)
from app.lab.bench.lab import QUICK, Lab, Options
from app.lab.bench.model import Result

BENCHMARKS: dict[str, Callable[[Lab], Awaitable[Result]]] = {
    "json": json_view.run,
    "wait": wait.run,
    "hop": hop.run,
    "mesh-call": mesh_call.run,
    "fleet": fleet.run,
    "cache": cache.run,
    "guard": guard.run,
    "tokens": tokens.run,
    "ended": ended.run,
    "events": events.run,
    "reads": reads.run,
}

Names = Annotated[list[str] | None, typer.Argument(help=f"Which: {', '.join(BENCHMARKS)}; all if none is named.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all samples and the machine to this file.")]
SvgFile = Annotated[
    Path | None, typer.Option("--picture", help="Where the SVG goes. (default: bench/ in the data directory)")
]
Quick = Annotated[bool, typer.Option("--quick", help="The short form: does it work? Its figures prove nothing.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds of each subject, interleaved. (default: 3)")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="The measured window of each round. (default: 3)")]
Only = Annotated[list[str] | None, typer.Option(help="Measure only this subject; repeat for more. (`ours`, `quart` …)")]
Strict = Annotated[bool, typer.Option("--strict", help="End with code 1 if a goal is missed.")]

# What a thousand connections need, here and in the children, which inherit it.
_OPEN_FILES = 16_384


def bench(
    names: Names = None,
    *,
    json_file: JsonFile = None,
    svg_file: SvgFile = None,
    quick: Quick = False,
    rounds: Rounds = None,
    seconds: Seconds = None,
    only: Only = None,
    strict: Strict = False,
) -> None:
    """Measure this house against others: both sides in one run, one server process at a time, on one core."""
    chosen = _chosen(names or list(BENCHMARKS))
    options = _options(QUICK if quick else Options(), rounds, seconds, tuple(only or ()))
    cores = proc.cores()
    machine, started = report.machine(cores), time.monotonic()
    if cores.shared:
        _tell("There is one core only: server and load share it, and requests/s mean little.")
    _allow_open_files()
    # Children choose their own; the bench itself is the load.
    os.sched_setaffinity(0, {cores.load})
    settings = settings_room.load()
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as data_dir:
        lab = Lab(options, cores, settings.redis_url.get_secret_value(), data_dir, _tell)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            results = runner.run(_run_all(chosen, lab))
    report.show(results, machine=machine)
    svg_file = svg_file or _default_picture(settings.data_dir)
    svg_file.write_text(picture.svg(results, caption=f"{machine['at']}, {machine['cpu']}, Python {machine['python']}"))
    typer.echo(f"Picture: {svg_file}")
    if json_file is not None:
        document = report.as_json(
            results, machine=machine, options=options, seconds=time.monotonic() - started, argv=sys.argv[1:]
        )
        json_file.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
        typer.echo(f"Samples: {json_file}")
    if strict and any(result.missed for result in results):
        raise typer.Exit(1)


async def _run_all(names: Sequence[str], lab: Lab) -> list[Result]:
    # SIGINT cancels this task already (asyncio.Runner); SIGTERM must leave no children behind either.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return [await BENCHMARKS[name](lab) for name in names]
    finally:
        await lab.clean_up()


def _chosen(names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise BadInput(f"No benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    return list(dict.fromkeys(names))


def _options(options: Options, rounds: int | None, seconds: float | None, only: tuple[str, ...]) -> Options:
    options = replace(options, only=only)
    if rounds is not None:
        options = replace(options, rounds=rounds)
    return options if seconds is None else replace(options, seconds=seconds)


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _default_picture(data_dir: Path) -> Path:
    folder = data_dir / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.svg"


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def main() -> None:
    """Run the command line; 0 done, 1 it did not work, 2 it makes no sense, 130 interrupted."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(bench)
    # Until the loop has its own handler: a library's import or the machine's description may already have a child.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command(prog_name="bench")
    except PlatformError as error:
        _tell(f"bench: {error.detail}")
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


if __name__ == "__main__":
    main()
