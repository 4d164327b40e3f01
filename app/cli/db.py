"""``mesh db``: the tables of the services."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from app import telemetry
from app.cli import terminal
from app.cli.running import DataDir, load_settings
from app.data import migrations
from app.errors import InvalidInput
from app.service import Service, discover, load
from app.settings import Settings

Name = Annotated[str | None, typer.Argument(metavar="[SERVICE]", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every service that has tables.")]


def register(mesh: typer.Typer) -> None:
    db = typer.Typer(help="The tables of the services: where they stand, and up to date.", no_args_is_help=True)
    db.command("upgrade")(upgrade)
    db.command("downgrade")(downgrade)
    db.command("revision")(revision)
    db.command("status")(status)
    mesh.add_typer(db, name="db")


def upgrade(service: Name = None, *, every: All = False, data_dir: DataDir = None) -> None:
    """Bring a service's tables to their newest revision."""
    settings = _settings(data_dir)
    for each in _chosen(service, every=every):
        before = asyncio.run(migrations.upgrade(each, settings.database_url_of(each.name)))
        if before.ahead:
            typer.echo(f"{each.name}: left alone; newer code has migrated it, to {before.current}")
        elif before.pending:
            typer.echo(f"{each.name}: now at {before.head}, was at {before.current or 'nothing'}")
        else:
            typer.echo(f"{each.name}: up to date at {before.head}")


def downgrade(
    service: Name = None,
    *,
    every: All = False,
    to: Annotated[
        str | None,
        typer.Option(metavar="REVISION", help="The one to go back to; base: to nothing.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Take a service's tables back by one revision, or to the one that is named. What only newer ones hold is lost."""
    if every and to not in (None, migrations.BASE):
        raise InvalidInput(f"With --all, go back by one revision each, or --to {migrations.BASE}")
    settings = _settings(data_dir)
    for each in _chosen(service, every=every):
        url = settings.database_url_of(each.name)
        before = asyncio.run(migrations.downgrade(each, url, to=to))
        after = asyncio.run(migrations.status(each, url))
        if before.current == after.current:
            typer.echo(f"{each.name}: stays at {after.current or 'nothing'}")
        else:
            typer.echo(f"{each.name}: now at {after.current or 'nothing'}, was at {before.current}")


def status(service: Name = None, *, every: All = False, data_dir: DataDir = None) -> None:
    """Say where a service's tables stand, and change nothing. The code is 1 if a revision is pending."""
    settings = _settings(data_dir)
    chosen = _chosen(service, every=every or service is None)
    found = [asyncio.run(migrations.status(each, settings.database_url_of(each.name))) for each in chosen]
    rows = [(s.service, s.current or "-", s.head or "-", " ".join(s.pending) or "-") for s in found]
    terminal.print_table(("SERVICE", "CURRENT", "NEWEST", "PENDING"), rows)
    if any(s.pending for s in found):
        raise typer.Exit(1)


def revision(
    service: Annotated[str, typer.Argument()], message: Annotated[str, typer.Argument()], *, data_dir: DataDir = None
) -> None:
    """Write a new revision: what the service's models have and its database lacks. Read it before you run it."""
    settings = _settings(data_dir)
    (each,) = _chosen(service, every=False)
    asyncio.run(migrations.revision(each, settings.database_url_of(each.name), message))
    typer.echo(f"{each.name}: a revision was written to {each.migrations}")


def _settings(data_dir: DataDir) -> Settings:
    settings = load_settings(data_dir)
    telemetry.configure(settings.model_copy(update={"log_level": "error"}), service="cli", instance="cli")
    return settings


def _chosen(name: str | None, *, every: bool) -> list[Service]:
    """Raises: InvalidInput: neither one nor all are named, or that one has no tables."""
    if every:
        return [each for each in map(load, discover()) if each.models is not None]
    if name is None:
        raise InvalidInput("Name a service, or say --all")
    service = load(name)
    if service.models is None:
        raise InvalidInput(f"The service {name} has no tables")
    return [service]
