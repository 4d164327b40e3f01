"""``mesh up``: everything on this machine, started."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.cli import terminal
from app.cli.running import DataDir, load_settings
from app.dev import daemon, demo, plan, ports, state, supervisor
from app.dev.events import Event, Report
from app.dev.state import State
from app.errors import Conflict
from app.service import discover
from app.settings import Settings

DEFAULT_PORT = 8000


def register(mesh: typer.Typer) -> None:
    mesh.command("up")(up)


def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
    replicas: Annotated[
        list[str] | None,
        typer.Option("--replicas", metavar="SERVICE=N", help="As in users=3; may be repeated, or users=3,orders=2."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the public edge; 0: any free one [default: 8000].")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Start everything on this machine: Redis if there is none, databases, services, the public edge."""
    settings = _settings(data_dir, port)
    services = discover()
    replica_plan = plan.replicas(services, plan.parse_counts(replicas or [], services))
    if state.running(settings.data_dir) is not None:
        raise Conflict(supervisor.already_running(settings.data_dir.resolve()))
    ports.require(settings.host, settings.port)

    def work(report: Report) -> None:
        supervisor.run(settings, replica_plan, report)

    first = f"Starting {len(replica_plan)} processes"
    if detach:
        # It forks, so it comes before the screen, which has a thread.
        events = daemon.detach(work, log=settings.data_dir / "logs" / "supervisor.log")
        with closing(events), terminal.Screen(first) as screen, _confession(screen):
            _wait_for_daemon(events, screen, settings)
    else:
        with terminal.Screen(first) as screen, _confession(screen):
            work(lambda event: _show(event, screen, settings, stop="Ctrl-C"))


@contextmanager
def _confession(screen: terminal.Screen) -> Iterator[None]:
    """Show what the process that did not start has said."""
    try:
        yield
    except supervisor.BootFailed as error:
        screen.still()
        for line in error.tail:
            screen.note(f"    {line}")
        raise


def _settings(data_dir: Path | None, port: int | None) -> Settings:
    settings = load_settings(data_dir, port=port)
    if settings.port == 0:
        asked_for_any = "port" in settings.model_fields_set
        settings = settings.model_copy(update={"port": ports.any_free() if asked_for_any else DEFAULT_PORT})
    return settings


def _wait_for_daemon(events: Iterator[Event], screen: terminal.Screen, settings: Settings) -> None:
    for event in events:
        if event.kind == "failed":
            raise supervisor.BootFailed(event.text, tail=event.details)
        _show(event, screen, settings, stop=_mesh_command("down", settings))


def _show(event: Event, screen: terminal.Screen, settings: Settings, *, stop: str) -> None:
    if event.kind == "step":
        screen.step(event.text)
    elif event.kind == "note":
        screen.note(event.text)
    elif event.kind == "ready" and event.state is not None:
        screen.still()
        _announce(event.state, settings, stop=stop)


def _announce(state: State, settings: Settings, *, stop: str) -> None:
    """The table of what runs where, and what to try next."""
    rows = [(p.service, str(p.number), p.url, str(p.pid), _short(p.log)) for p in state.processes]
    typer.echo()
    terminal.print_table(("SERVICE", "REPLICA", "URL", "PID", "LOG"), rows)
    examples = demo.commands(state.url, redis_url=state.redis_url, settings=settings.registry)
    typer.echo("\nTry:")
    for command in (*examples, _mesh_command("ps", settings)):
        typer.echo(f"    {command}")
    typer.echo(f"\nAPI: {state.url}/docs    Stop: {stop}")
    sys.stdout.flush()


def _mesh_command(verb: str, settings: Settings) -> str:
    """How to type it here: with the path of `mesh` unless it is on PATH, and the data directory if it is not ours."""
    program = Path(sys.prefix) / "bin" / "mesh"
    on_path = shutil.which("mesh") == str(program)
    words = ["mesh" if on_path else _short(program), verb]
    if settings.data_dir.resolve() != load_settings(None).data_dir.resolve():
        words += ["--data-dir", _short(settings.data_dir)]
    return shlex.join(words)


def _short(path: Path) -> str:
    """Relative to where we are, if it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
