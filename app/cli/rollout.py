"""``mesh rollout``: the replicas of a running system started anew, one at a time, without losing a request."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import typer

from app.cli import news, running, terminal
from app.cli.running import DataDir
from app.dev import control
from app.dev.control import Order
from app.dev.state import State
from app.errors import InvalidInput, Unavailable


def register(mesh: typer.Typer) -> None:
    mesh.command("rollout")(rollout)


def rollout(
    services: Annotated[list[str] | None, typer.Argument(metavar="SERVICE", show_default=False)] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every service, the gateway last.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Restart services one replica at a time, as after a change of their code: no request is lost.

    Each replica's successor is started first; when it is ready and its callers know it, the replica itself drains and
    ends. A successor that does not become ready ends the rollout, and its predecessor serves on. After Ctrl-C the
    replica at hand is still finished, and the others stay as they are; the system runs on either way.
    """
    known = running.supervised(data_dir)
    chosen = _chosen(services or [], known, every=every)
    if known.phase != "ready" or known.control is None:
        raise Unavailable(f"The system is {known.phase}; try again when it is ready")
    orders = control.ask(known.control, Order(kind="rollout", services=chosen))
    with terminal.Screen(f"Rollout of {', '.join(chosen)}") as screen, news.confession(screen), closing(orders):
        try:
            for _ in news.until_done(orders, screen):
                screen.still()
        except KeyboardInterrupt:
            screen.still()
            screen.note("Interrupted: the replica at hand is finished, the others stay as they are.")
            raise
    count = sum(process.service in chosen for process in known.processes)
    typer.echo(f"Done: {count} {'replica' if count == 1 else 'replicas'} of {', '.join(chosen)} replaced.")


def _chosen(named: Sequence[str], known: State, *, every: bool) -> tuple[str, ...]:
    """Raises: InvalidInput: neither some nor all are named, or one that does not run here."""
    there = tuple(dict.fromkeys(process.service for process in known.processes))
    if every == bool(named):
        raise InvalidInput("Name services, or say --all")
    for name in named:
        if name not in there:
            raise InvalidInput(f"No replica of {name!r} runs here; there are: {', '.join(there)}")
    return there if every else tuple(dict.fromkeys(named))
