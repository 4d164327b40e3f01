"""``mesh services``: what there is to run."""

from __future__ import annotations

import typer

from app.cli import terminal
from app.service import discover, load


def register(mesh: typer.Typer) -> None:
    mesh.command("services")(services)


def services() -> None:
    """List the services of this house: their public paths, whom they call, what they are for."""
    found = [load(name) for name in discover()]
    rows = [
        (s.name, " ".join(s.prefixes) or "-", "yes" if s.models else "-", " ".join(s.calls) or "-", s.description)
        for s in found
    ]
    terminal.print_table(("SERVICE", "PATHS", "DATABASE", "CALLS", "WHAT IT IS"), rows)
