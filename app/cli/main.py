"""The table of commands, and how errors leave: one line on stderr and a code, never a traceback for what is foreseen.

0  done      1  it did not work      2  it was asked for in a way that makes no sense      130  interrupted
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

from app.errors import BadInput, PlatformError

# A command's room is imported when it is called: `mesh ps` has no use for Alembic, nor `mesh up` for Flask.
COMMANDS = {
    "up": "app.cli.up",
    "down": "app.cli.down",
    "run": "app.cli.run",
    "ps": "app.cli.ps",
    "inspect": "app.cli.inspection",
    "call": "app.cli.call",
    "token": "app.cli.token",
    "rollout": "app.cli.rollout",
    "drain": "app.cli.drain",
    "weight": "app.cli.weight",
    "user": "app.cli.user",
    "client": "app.cli.client",
    "db": "app.cli.db",
    "events": "app.cli.events",
    "services": "app.cli.services",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (default: the process's own) and end the process."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        build(arguments)(args=arguments, prog_name="mesh")
    except PlatformError as error:
        typer.echo(f"mesh: {error.detail}", err=True)
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


def build(arguments: Sequence[str]) -> typer.Typer:
    """The command line with the command that `arguments` call, or with all of them."""
    mesh = typer.Typer(
        help="Run, watch and call a mesh of async Flask services.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # With a callback it stays a group even when it holds one command.
    mesh.callback()(_group)
    called = COMMANDS.get(arguments[0]) if arguments else None
    for module in [called] if called else dict.fromkeys(COMMANDS.values()):
        importlib.import_module(module).register(mesh)
    return mesh


def _group() -> None:
    pass
