"""``mesh up``: everything on this machine, started."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from app.cli import news, terminal
from app.cli.running import DataDir, load_settings
from app.dev import daemon, demo, plan, ports, premises, state, supervisor
from app.dev.events import Event, Report
from app.dev.state import Process, State
from app.errors import Conflict
from app.service import GATEWAY, discover
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
        raise Conflict(premises.already_running(settings.data_dir.resolve()))
    ports.require(settings.host, settings.port)

    def work(report: Report) -> None:
        supervisor.run(settings, replica_plan, report)

    first = f"Starting {len(replica_plan)} processes"
    premises.make(settings.data_dir.resolve())
    if detach:
        # It forks, so it comes before the screen, which has a thread.
        events = daemon.detach(work, log=settings.data_dir / "logs" / "supervisor.log")
        with closing(events), terminal.Screen(first) as screen, news.confession(screen):
            for event in news.until_done(events, screen):
                _announce(event, screen, settings, stop=_mesh_command("down", settings))
    else:
        with terminal.Screen(first) as screen, news.confession(screen):
            work(lambda event: _show(event, screen, settings))


def _settings(data_dir: Path | None, port: int | None) -> Settings:
    settings = load_settings(data_dir, port=port)
    if settings.port == 0:
        asked_for_any = "port" in settings.model_fields_set
        settings = settings.model_copy(update={"port": ports.any_free() if asked_for_any else DEFAULT_PORT})
    return settings


def _show(event: Event, screen: terminal.Screen, settings: Settings) -> None:
    for finished in news.until_done([event], screen):
        _announce(finished, screen, settings, stop="Ctrl-C")


def _announce(event: Event, screen: terminal.Screen, settings: Settings, *, stop: str) -> None:
    """The table of what runs where, and what to try next."""
    screen.still()
    if event.state is not None:
        _print(event.state, settings, stop=stop)


def _print(state: State, settings: Settings, *, stop: str) -> None:
    rows = [(p.service, str(p.number), _url(p, state), str(p.pid), _short(p.log)) for p in state.processes]
    typer.echo()
    terminal.print_table(("SERVICE", "REPLICA", "URL", "PID", "LOG"), rows)
    token = "" if settings.env == "production" else _mesh_command("token", settings)
    examples = demo.commands(state.url, redis_url=state.redis_url, settings=settings.registry, token_command=token)
    typer.echo("\nTry:")
    for command in (*examples, _mesh_command("ps", settings)):
        typer.echo(f"    {command}")
    typer.echo(f"\nAPI: {state.url}/docs    Stop: {stop}")
    sys.stdout.flush()


def _url(process: Process, state: State) -> str:
    """Where it serves; all gateways share the public address."""
    return state.url if process.service == GATEWAY else process.url


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
